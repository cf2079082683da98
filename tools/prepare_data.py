"""The packer of datasets, under the name of the first versions: see `python -m b2b_jax.prepare --help`.

python tools/prepare_data.py reds --source ~/downloads/REDS --output data/prepared
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from b2b_jax.prepare import main

if __name__ == "__main__":
    sys.exit(main())
