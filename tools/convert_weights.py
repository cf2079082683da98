"""The converter of weights, under the name that the papers' users know: see `python -m b2b_jax.convert --help`.

python tools/convert_weights.py NAFNet-GoPro-width64.pth weights/nafnet_gopro64.safetensors
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from b2b_jax.convert import main

if __name__ == "__main__":
    sys.exit(main())
