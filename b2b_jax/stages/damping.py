"""How far a kernel mixture trusts the photo over the deblurrer, tried on photos as the learnt camera takes them."""

import jax
import jax.numpy as jnp
import numpy as np

from b2b_jax import metrics, networks
from b2b_jax.method import camera_model
from b2b_jax.models.consistent import Explained, agreeing
from b2b_jax.networks import Network
from b2b_jax.stages import camera, camera_photos
from b2b_jax.stages.run import Run

TRIED = (0.01, 0.03, 0.1, 0.3, 1.0, 10.0, 1e6)  # the last: the photo is not trusted at all
PHOTOS = 8  # each takes four passes of the deblurrer


def choose(run: Run, mixture: Network) -> float:
    """The best of TRIED by PSNR, on sharp photos that the camera was not learnt from, made blurry by it."""
    blurry, sharp = pairs(run)
    network = networks.consistent(mixture, run.network("deblurrer"))
    explain = jax.jit(lambda variables, photo: network.module.apply(variables, photo, method="explained"))
    told = [explain(network.variables, photo[None]) for photo in blurry]  # one by one: bounds the memory
    told = Explained(*(jnp.concatenate(parts) for parts in zip(*told, strict=True)))
    agree = jax.jit(agreeing)
    scores = {damping: _psnr(agree(blurry, told, damping), sharp) for damping in TRIED}
    best = max(scores, key=scores.__getitem__)
    alone = f"{_psnr(told.sharp, sharp):.2f} dB without agreement"
    print(f"kernel_field: damping {best:g}, {scores[best]:.2f} dB on {len(sharp)} photos that it made, {alone}")
    return best


def pairs(run: Run) -> tuple[jax.Array, jax.Array]:
    """PHOTOS photos as the learnt camera takes them, and sharp: (n, h, w, 3) in [0, 1]."""
    learnt, key = camera.load(run), jax.random.key(run.config.seed)
    photos = camera_photos.unseen(run, learnt.module.reach).sharp
    chosen = photos[np.linspace(0, len(photos) - 1, min(PHOTOS, len(photos))).astype(int)]
    threshold = run.config.camera.threshold
    return camera_model.pairs(learnt.module, learnt.variables, jnp.asarray(chosen), key, threshold)


def _psnr(restored: jax.Array, sharp: jax.Array) -> float:
    return float(np.mean(metrics.psnr(metrics.round8(np.asarray(restored)), np.asarray(sharp))))
