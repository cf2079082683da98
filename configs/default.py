"""Every key of a run, once, with its unit and the reason for its value. The other configs are short deltas of this one.

The values are the paper's (Blur2Blur, CVPR 2024, arXiv 2403.16205) for the translator and NAFNet's (ECCV 2022,
arXiv 2204.04676) for the deblurrer. Any key can be set on the command line: `--config.translator.batch=8`.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the configuration that every other one starts from."""
    config = ConfigDict()
    config.seed = 0  # of weights, data order, crops, noise: two runs with equal configs are equal bit by bit
    # Run in this order; finished ones are skipped, and the extractor where known_blur.source does not ask for it.
    config.stages = (
        *("deblurrer", "blur_extractor", "camera", "denoiser", "kernel_field", "adaptation", "translator", "cycle"),
        *("evaluation", "report"),
    )
    config.compute_dtype = "auto"  # of the networks' activations: float32 | bfloat16 | auto (float32 on CPU only)
    config.data = data()
    config.known_blur = known_blur()
    config.deblurrer = deblurrer()
    config.blur_extractor = blur_extractor()
    config.camera = camera()
    config.adaptation = adaptation()
    config.translator = translator()
    config.denoiser = denoiser()
    config.kernel_field = kernel_field()
    config.cycle = cycle()
    config.loop = loop()
    config.evaluation = evaluation()
    return config


def data() -> ConfigDict:
    """Where the photos come from (design: two unpaired piles of one camera, and the pairs of a public dataset)."""
    return ConfigDict(
        {
            "known": "gopro",  # layout of the paired dataset that the deblurrer knows: b2b_jax/data/layouts.py
            "unknown": "reds",  # layout of the camera's dataset; "" when unknown_blur and unknown_sharp are given
            "name": "",  # curated: which of the datasets below root, as known or as the camera
            "root": "data",  # folder that holds the official downloads, each under its layout's folder name
            "degradation": degradation(),  # of known="degraded": pairs made of sharp photos and videos
            # Folder of the known download; "" = root/<its folder name>. With known="degraded" that of sharp photos
            # and videos; "" = the camera's own, unknown_sharp.
            "known_path": "",
            "unknown_path": "",  # the same for the camera's
            "known_variant": "",  # gopro: blur ("", linear response) | blur_gamma
            "unknown_variant": "",  # the same for the camera's
            "prepared": "prepared",  # folder below root that b2b_jax.prepare filled; read where no path is given
            "prepare": False,  # fill it where it lacks a dataset: as much disk as the download, for few large reads
            "unknown_blur": "",  # your camera's blurry photos and videos (any nesting); replaces the layout's
            "unknown_sharp": "",  # your camera's sharp photos and videos of other scenes
            "videos": videos(),
            "test_blur": "",  # optional blurry photos to score on, with
            "test_sharp": "",  # … their sharp twins under the same names, and
            "test_known": "",  # … optionally these under the known blur, for evaluation.oracle
            "split_ratio": 0.6,  # share of the camera's photos that becomes unknown_blur; the rest: unknown_sharp
            "share": 1.0,  # of both piles that is used, by whole scenes: how much a camera's photos are worth (table 5)
            # A training photo that is broken or smaller than the crop: skip (name it, take the next one) | stop. A bad
            # photo to score on always stops the run: a table is about all its photos.
            "bad_photos": "skip",
            # Crops of one decoding, for as many successive steps: up to 4 where photos come too slowly, as the progress
            # bar's images/s tell (docs/benchmarks.md). No batch has fewer photos for it, but neighbours share theirs.
            "crops_per_image": 1,
            "threads": 2,  # that read and decode ahead of the accelerator
            "prefetch": 4,  # batches kept ready; at least crops_per_image for each thread
            "scenes": scenes(),
        }
    )


def degradation() -> ConfigDict:
    """How sharp photos are made blurry when `data.known` is "degraded": baselines that know no camera's blur."""
    return ConfigDict(
        {
            # Of photos, afresh at every draw: realistic (RSBlur's synthesis) | bsrgan | imgaug (motion along a line).
            # Of neighbouring frames, once: frames (their average as light) | realistic_frames (RSBlur's synthesis)
            "kind": "realistic",
            "frames": 7,  # neighbours that are averaged; for videos set videos.every=1 and videos.thin=0
            "response": "gamma",  # of the camera, for kind=frames: gamma (2.2) | srgb | linear
        }
    )


def videos() -> ConfigDict:
    """Which frames of your videos are used; they are written once to root/frames, as PNG of about 3 MB at 1080p."""
    return ConfigDict(
        {
            "every": 10,  # takes each n-th frame: neighbours show nearly the same
            "limit": 200,  # frames of one video, so that none outweighs the others; 0 = all
            "thin": 1.0,  # grey levels by which a frame, reduced to 32x32, must differ from the one before; 0 = none
        }
    )


def scenes() -> ConfigDict:
    """Generated photos: used when `data.known` or `data.unknown` is "scenes"."""
    return ConfigDict(
        {
            "seed": 0,  # of the scenes and their blur, apart from `seed`: runs of other seeds share their data
            "size": 160,  # pixels a side
            "known": 600,  # scenes blurred afresh at every draw by known_kernel: the deblurrer's pairs
            "blur": 600,  # scenes blurred once by unknown_kernel, as a camera does: unknown_blur
            "sharp": 600,  # unknown_sharp
            "validation": 64,
            "test": 64,  # for the table
            # The known blur: a continuous horizontal motion of 5–11 px, within 10 degrees.
            "known_kernel": ConfigDict({"kind": "box", "length": (5.0, 11.0), "angle": (-10.0, 10.0), "size": 21}),
            # The camera's: two displaced copies averaged (a burst of two frames, flicker, low-rate frame averaging).
            # A motion as long as their distance d turns them into a continuous motion of 2 d, 7-11 px: a known blur.
            "unknown_kernel": ConfigDict(
                {"kind": "copies", "extent": (3.5, 5.5), "copies": 2, "angle": (-10.0, 10.0), "size": 21}
            ),
            # What the camera does behind its lens: b2b_jax/data/processing.py. As it stands, nothing.
            "unknown_processing": ConfigDict(
                {"response": "linear", "amount": (0.0, 0.0), "sigma": (1.0, 1.5), "noise": 0.0, "quality": 0}
            ),
            "sharp_scale": 1,  # above 1: unknown_sharp shows so many times smaller things than unknown_blur
        }
    )


def known_blur() -> ConfigDict:
    """What the discriminator takes as real (the set K): the known blur, at best on this camera's own sharp photos."""
    return ConfigDict(
        {
            # extractor: the blur of known pairs, moved by the blur extractor onto unknown_sharp (paper); paired: the
            # known dataset's blurry photos as they are; synthetic: scenes.known_kernel on unknown_sharp; folder: `path`
            "source": "extractor",
            "path": "",  # folder of photos with the known blur, for source=folder
        }
    )


def deblurrer() -> ConfigDict:
    """The network that removes the known blur, trained on known pairs, then frozen."""
    return ConfigDict(
        {
            "weights": "",  # a .safetensors of b2b_jax.convert: loaded instead of trained
            "network": ConfigDict(
                {
                    "name": "nafnet",
                    "width": 32,
                    "encoders": (1, 1, 1, 28),
                    "middle": 1,
                    "decoders": (1, 1, 1, 1),
                    "unshuffle": 1,  # 2: work at half resolution behind a pixel-unshuffle, four times cheaper
                    "local": True,  # in use, means over a window as in training (TLC): 33.71 dB on GoPro, not 33.08
                    "train_size": 256,  # pixels of a training crop, which set that window
                }
            ),
            "loss": "psnr",  # psnr | l1 | mse | charbonnier | sobel | fourier | perceptual, or a sum: "l1+0.1*fourier"
            "perceptual_weights": "weights/vgg19.safetensors",  # converted torchvision weights, for perceptual
            "steps": 400_000,
            "batch": 32,  # images over all devices
            "crop": 256,  # pixels
            "augment": True,  # quarter turns and mirror images (the blur turns with the photo)
            "optimizer": optimizer(learning_rate=1e-3, final=1e-7, betas=(0.9, 0.9), weight_decay=1e-3, clip=0.01),
            "ema": 0.0,  # decay of the weights' moving average; 0 = none
        }
    )


def optimizer(**values: object) -> ConfigDict:
    """The optimiser of a supervised stage, and how its learning rate falls."""
    config = ConfigDict(
        {
            "name": "adamw",  # adamw | adam | rmsprop
            "schedule": "cosine",  # cosine | restarts | halving | linear | constant
            "learning_rate": 1e-3,
            "final": 0.0,  # learning rate at the last step (cosine), at the end of each period (restarts)
            "periods": 4,  # of restarts and halving
            "constant_steps": 0,  # of linear: steps before the line to 0 begins
            "warmup": 0,  # steps
            "betas": (0.9, 0.999),  # of adam and adamw
            "rho": 0.9,  # of rmsprop: decay of the squared gradients' average
            "weight_decay": 0.0,  # of adamw
            "clip": 0.0,  # largest global gradient norm; 0 = none
            "accumulate": 1,  # steps whose gradients are averaged for one move of the weights: a larger batch in parts
        }
    )
    config.update(values)
    return config


def blur_extractor() -> ConfigDict:
    """KernelWizard (arXiv 2104.00317), which learns to move the known blur; used when known_blur.source=extractor."""
    return ConfigDict(
        {
            "weights": "",  # a .safetensors of b2b_jax.convert: loaded instead of trained
            "network": ConfigDict(
                {
                    "name": "kernel_wizard",
                    "nf": 64,  # channels of the features
                    "kernel_dim": 512,  # channels of a code of blur
                    "front_blocks": 10,
                    "back_blocks": 20,
                    "kernel_blocks": 4,
                    "variational": False,  # codes as distributions; Blur2Blur's released code uses none
                    "shrinks": 2,  # halvings on the way to the features
                    "reductions": 5,  # further ones to a code; crops of at least 2 * 2^(shrinks + reductions) pixels
                    "tail": 64,  # channels of the last layers
                }
            ),
            "kl_weight": 10.0,  # of the codes' divergence from N(0, 1), when variational
            "steps": 600_000,
            "batch": 16,  # images over all devices
            "crop": 256,  # pixels
            "augment": True,  # quarter turns and mirror images (the blur turns with the photo)
            "optimizer": optimizer(name="adam", schedule="restarts", learning_rate=1e-4, final=1e-7, betas=(0.9, 0.99)),
        }
    )


def camera() -> ConfigDict:
    """The camera model: the camera's own blur, learnt from its two piles, to make pairs with; not in the paper."""
    return ConfigDict(
        {
            "enabled": False,  # learn it; the adaptation does, too
            "weights": "",  # a .safetensors of a learnt camera: loaded instead of trained
            "network": ConfigDict(
                {
                    "name": "camera",
                    "latent": 8,  # random numbers that differ from shot to shot
                    "width": 64,  # of the two layers that they go through
                    "size": 31,  # pixels of a kernel, odd: longer blur than this is not learnt
                    "start": 3.0,  # pixels: standard deviation of the Gaussian that the untrained kernel is
                    "field": 0,  # pixels over which a photo's kernel drifts, at best camera.crop; 0 = one for a photo
                    "kernel": True,  # the parts that the camera has: blur,
                    "sharpening": True,  # an unsharp mask after it,
                    "noise": True,  # white noise,
                    "response": False,  # and a power between stored values and the light that is blurred
                }
            ),
            # adversarial: the network, against a discriminator, which compares the piles. likelihood: a `bank` of many
            # shots, each as often as the blurry photos say one by one; the piles may show different things.
            "learner": "adversarial",
            "bank": bank(),
            "discriminator": ConfigDict(
                # It sees autocorrelations of gradients: colour and content drown the cue of a small blur.
                {"name": "correlation", "lags": 15, "width": 128, "windows": 1}  # windows²: one for each part of a crop
            ),
            "gan_loss": "hinge",
            "gradient_penalty": ConfigDict({"weight": 0.1, "every": 4, "precision": "highest"}),
            "camera_rate": 2e-3,  # of Adam, falling in a line to a twentieth
            "discriminator_rate": 1e-3,
            "betas": (0.5, 0.99),
            "steps": 4_000,  # the demo's 600 suffice for its 64 pixels; at this size it has not been measured
            "batch": 64,  # images of each pile over all devices; a few random kernels are no fair sample of a camera
            "crop": 128,  # pixels of a blurry photo; of a sharp one as many more as the camera reaches
            "ema": 0.995,  # decay of the camera's moving average, which is what makes pairs; 0 = none
            # Least distance between the piles, in standard errors over parts of them (stages/piles.py): where each
            # shows a few scenes only, the camera learns those, not its blur, and is not used. 0 = it is used anyway.
            "evidence": 6.0,
            "threshold": 0.025,  # of a kernel's peak, below which it is cut to zero in pairs: a softmax leaves a haze
        }
    )


def bank() -> ConfigDict:
    """What camera.learner=likelihood chooses from, and what reads the photos for it; `camera.network` has its parts."""
    return ConfigDict(
        {
            "count": 24_000,  # shots: where they lie far apart, photos between them are taken for shots of other kinds
            "family": family(),  # their kernels, of camera.network.size pixels
            "amount": (0.5, 6.0),  # of sharpening, in half of the shots
            "sigma": (0.6, 3.0),  # pixels: of its Gaussian
            "noise": (0.8, 1.2),  # times the noise that is found in the blurry photos
            "response": 2.2,  # stored value ** response = light, where camera.network has a response; sRGB is near 2.2
            "reader": ConfigDict(
                {
                    "name": "reader",
                    "lags": 15,  # pixels to each side that it sees of cepstra and autocorrelations
                    "width": 512,  # of its layers
                    "dim": 64,  # of what photos and shots are compared in
                    "dropout": 0.5,  # without it and the noise it remembers the photos that it is taught with
                    "noise": 0.25,  # standard deviation, on cepstra, as a share of theirs
                }
            ),
            "kept": 16_384,  # photos that were made blurry, camera.batch a step, and are taught again and again,
            "batch": 512,  # so many a step; each has to be told from the shots of the others
            "optimizer": optimizer(learning_rate=1e-3, weight_decay=0.1),
            "temper": 0.35,  # factor of the scores: photos that the reader does not know are read less surely
            "iterations": 20,  # of expectation and maximisation; many leave one shot for each photo
            # Where the camera may over-sharpen, all its shots do alike: how much is read from the edges in photos.
            "sharpening": ConfigDict(
                {
                    "window": 64,  # pixels a side
                    "windows": 4,  # of each photo of a step
                    "optimizer": optimizer(learning_rate=3e-3, weight_decay=1e-3),
                }
            ),
        }
    )


def adaptation() -> ConfigDict:
    """The deblurrer goes on training on pairs of this camera; not in the paper."""
    return ConfigDict(
        {
            "enabled": False,
            "weights": "",  # a .safetensors of an adapted deblurrer: loaded instead of trained
            # Whose pairs: camera (the learnt one makes them of unknown_sharp) | frames (blurry frames of your videos,
            # and what sharp ones near by tell of them: BluRef's idea, arXiv 2603.14176)
            "teacher": "camera",
            "frames": near_frames(),  # for teacher=frames
            "known": 0.25,  # share of known pairs in a batch, so that it forgets nothing
            "loss": "l1",  # as deblurrer.loss
            "perceptual_weights": "weights/vgg19.safetensors",
            "steps": 20_000,
            "batch": 16,  # images over all devices
            "crop": 256,  # pixels
            # Quarter turns and mirror images of the sharp photos, before they are blurred; of matched frames with their
            # blur, which only suits one that has every direction.
            "augment": True,
            "optimizer": optimizer(name="adam", learning_rate=2e-4, final=1e-7, betas=(0.9, 0.99), warmup=50, clip=1.0),
            "ema": 0.0,  # decay of the weights' moving average; 0 = none
        }
    )


def near_frames() -> ConfigDict:
    """Which frames of your videos are paired; for every blurry one a sharp one near by is moved onto it."""
    return ConfigDict(
        {
            "folder": "",  # of videos, and of sub-folders of numbered frames; "" = data.unknown_blur
            "limit": 200,  # first frames of one video, all of them neighbours, unlike data.videos; 0 = all
            "near": 4,  # frames before and after a blurry one; farther ones have moved too much to match
            "sharper": 1.5,  # times the blurry frame's variance of the Laplacian: half of a blur is no truth
            # Grey levels by which the moved frame, blurred alike, may differ from the blurry one where it is kept, both
            # smoothed over a pixel. Noisy videos want more.
            "agreement": 5.0,
            "least": 0.3,  # share of a frame that must be kept; frames of less are left out
        }
    )


def translator() -> ConfigDict:
    """Blur2Blur itself: the generator, its discriminator and their losses (paper, section 3)."""
    return ConfigDict(
        {
            "weights": "",  # a .safetensors: loaded instead of trained
            "generator": ConfigDict(
                {
                    "name": "mimo_unet",
                    "base_channels": 32,
                    "num_res": 8,
                    "weight_init": "normal",  # normal (0, 0.02, as published) | torch (uniform by fan-in)
                    "zero_init": False,  # start as the identity: zero output convolutions
                }
            ),
            "discriminator": ConfigDict(
                {
                    "name": "patchgan",
                    "ndf": 64,
                    "n_layers": 3,
                    "norm": "instance",  # instance | none
                    "weight_init": "normal",  # normal (0, 0.02, as published) | torch (uniform by fan-in)
                    "input": "rgb",  # rgb (paper) | gradient: colour and content drown the cue of a small blur
                }
            ),
            "supervision": "adversarial",  # adversarial (paper) | camera (pairs of the learnt camera) | both
            "pairs": ConfigDict(  # used by supervision=camera and both: through the frozen deblurrer to the sharp photo
                {
                    "weight": 10.0,  # of both: of this loss beside the others
                    "steps": 20_000,  # of camera
                    "optimizer": optimizer(name="adam", learning_rate=2e-4, final=1e-7, betas=(0.9, 0.99), warmup=50),
                    "augment": True,  # as adaptation.augment
                    "known": 0.0,  # as adaptation.known: what a known-blurred photo is, needs no translation
                }
            ),
            "gan_loss": "logistic",  # logistic (eq. 3) | hinge (released code) | least_squares | wasserstein
            "gradient_penalty": ConfigDict(
                {
                    "weight": 0.005,  # lambda of eq. 4
                    "every": 1,  # steps between penalties; the weight is multiplied by it (lazy regularisation)
                    # Of its products on a GPU: high (TF32, as PyTorch's convolutions) | highest (float32, half as fast)
                    "precision": "high",
                }
            ),
            "content": ConfigDict(
                {
                    "kind": "vgg19",  # vgg19 (paper) | vgg16 (released code) | pooled (Charbonnier of 4x4 means)
                    "weight": 0.8,  # lambda_rec
                    "weights": "weights/vgg19.safetensors",  # converted torchvision weights; unused by pooled
                }
            ),
            "curriculum": ConfigDict(
                {
                    "start": 0.5,  # share of each batch that counts at first; 1 = no curriculum
                    "direction": "sharp_first",  # sharp_first (the least blurry count first) | blurry_first
                    "grow_from": 200_000,  # step at which the share starts to grow
                    "full_at": 500_000,  # step from which every image counts
                }
            ),
            "steps": 1_000_000,
            "batch": 16,  # images over all devices
            "crop": 256,  # pixels
            "resize": 0,  # pixels of a photo's shorter side before it is cropped (released code: 512); 0 = as it is
            "augment": True,  # quarter turns and mirror images; of the blurs, too
            "turns": True,  # False: augmented by mirroring left to right only (released code)
            "color_jitter": 0.1,  # largest relative change of brightness, contrast and saturation; 0 = none
            "optimizer": ConfigDict(
                {
                    "generator_rate": 2e-4,
                    "discriminator_rate": 2e-4,
                    "constant_steps": 500_000,  # then linearly to 0 at the last step
                    "warmup": 0,  # steps, of the generator's rate
                    "betas": (0.5, 0.999),
                    # Steps whose gradients are averaged for one move of both networks: a larger batch in parts, where
                    # memory binds. All numbers of steps, and ema, still count each part.
                    "accumulate": 1,
                }
            ),
            "ema": 0.999,  # decay of the generator's moving average, which is what is evaluated and exported; 0 = none
        }
    )


def denoiser() -> ConfigDict:
    """Takes the camera's noise, JPEG and response away, for kernel_field.teacher=reader; not in the paper."""
    return ConfigDict(
        {
            "enabled": False,  # otherwise a Wiener filter holds the noise down; a response needs it
            "weights": "",  # a .safetensors of a trained one: loaded instead of trained
            "network": ConfigDict(
                {
                    "name": "nafnet",
                    "width": 32,
                    "encoders": (2, 2, 4),
                    "middle": 4,
                    "decoders": (2, 2, 2),
                    "unshuffle": 1,
                    "local": False,  # in use, means over a window as in training; `deblurrer.network` has it
                    "train_size": 256,
                }
            ),
            "loss": "charbonnier",  # as deblurrer.loss
            "perceptual_weights": "weights/vgg19.safetensors",
            "steps": 20_000,
            "batch": 16,  # images over all devices
            "crop": 128,  # pixels
            "augment": True,  # quarter turns and mirror images of the sharp photos, before they are blurred
            "optimizer": optimizer(learning_rate=1e-3, final=1e-7, betas=(0.9, 0.9), warmup=100, clip=1.0),
            "ema": 0.0,  # decay of the weights' moving average; 0 = none
        }
    )


def kernel_field() -> ConfigDict:
    """A translator that can only convolve, taught with the learnt camera's kernels; not in the paper."""
    return ConfigDict(
        {
            "enabled": False,
            "weights": "",  # a .safetensors of a taught one: loaded instead of trained
            "network": ConfigDict(
                {
                    "name": "kernel_field",
                    "size": 21,  # pixels of a kernel, odd
                    "reads": "cepstrum",  # what it reads of a photo's gradients: cepstrum | autocorrelation
                    "lags": 15,  # pixels to each side that this reaches
                    "width": 512,  # of the two layers that read it
                    "window": 160,  # pixels of a square that is read at once, and of a training crop
                    "field": False,  # a kernel for each window, blended over the photo, instead of one for the photo
                    "start": 0.7,  # pixels: standard deviation of the Gaussian that the untrained kernel is
                    "threshold": 0.15,  # of a kernel's peak, below which it is cut in use: a softmax leaves a haze
                    "symmetric": True,  # in use: autocorrelations do not tell a kernel from its mirror image
                }
            ),
            # Whose kernels: camera (the learnt one) | file (`kernels`) | family (`family`). Or reader: nothing is
            # taught, the reader of a camera learnt by likelihood says which of its shots a photo is of.
            "teacher": "camera",
            "kernels": "",  # for teacher=file, a .npy of kernels (n, k, k): those of the camera, where they are known
            "family": family(),  # for teacher=family
            "lessons": 2048,  # random shots that it is taught with
            # What the camera's kernels shall become, at best: even motion in any direction. Of so many random ones each
            # takes the nearest, where `ridge` is the squared spectrum below which a frequency of the camera's kernel
            # counts as lost, and `mildness` the squared error that a square pixel less of blur is worth.
            "known_kernel": ConfigDict({"kind": "box", "length": (3.0, 18.0), "angle": (0.0, 180.0), "size": 21}),
            "known": 4000,
            "ridge": 0.01,
            "mildness": 1e-4,
            "steps": 1_500,
            "batch": 64,  # images over all devices
            "augment": True,  # quarter turns and mirror images of the sharp photos, before they are blurred
            "optimizer": optimizer(learning_rate=1e-3, warmup=50, weight_decay=1e-4, clip=1.0),
            "ema": 0.0,  # decay of the weights' moving average; 0 = none
        }
    )


def family() -> ConfigDict:
    """Blurs of every kind, drawn equally often: what a kernel field is taught with where the camera is not known."""
    return ConfigDict(
        {
            "two_copies": {"kind": "copies", "copies": 2, "extent": (1.0, 12.0), "angle": (0.0, 180.0)},
            "three_copies": {"kind": "copies", "copies": 3, "extent": (2.0, 14.0), "angle": (0.0, 180.0)},
            "motion": {"kind": "box", "length": (1.0, 14.0), "angle": (0.0, 180.0)},
            "hand": {"kind": "trajectory", "length": (2.0, 14.0)},
            "defocus": {"kind": "gaussian", "sigma": (0.3, 3.0)},
        }
    )


def cycle() -> ConfigDict:
    """A rival of Blur2Blur: an unpaired deblurrer, with CycleGAN's settings; configs/baselines.py has DualGAN's."""
    return ConfigDict(
        {
            "enabled": False,  # train it, from the camera's two piles alone
            "weights": "",  # a .safetensors of a generator: loaded instead of trained
            "kind": "cyclegan",  # cyclegan (least squares) | dualgan (Wasserstein)
            "generator": ConfigDict(
                {
                    "name": "resnet",
                    "ngf": 64,  # channels at full size
                    "n_blocks": 9,
                    "norm": "instance",  # instance | none
                    "signed": True,  # computes in [-1, 1]
                    "weight_init": "normal",  # normal (0, 0.02, as published) | torch (uniform by fan-in)
                }
            ),
            "discriminator": ConfigDict(
                {
                    "name": "patchgan",
                    "ndf": 64,
                    "n_layers": 3,
                    "norm": "instance",  # instance | none
                    "weight_init": "normal",
                    "input": "signed",  # signed (in [-1, 1]) | gradient (of the photo)
                }
            ),
            "cycle_weight": 10.0,  # lambda, of the mean absolute difference in [-1, 1] that is left after both ways
            "identity_weight": 5.0,  # 0.5 lambda: of what a generator changes in photos that need no change; 0 = none
            "critics": 1,  # updates of the discriminators, each on new photos, for one of the generators
            "clip": 0.0,  # largest absolute weight of a discriminator (Wasserstein); 0 = none
            "pool": 50,  # fakes of either kind that are kept for the discriminators; 0 = they see the newest only
            "steps": 1_000_000,  # of the generators; the paper does not say how it trained its rivals
            "batch": 1,  # images of each pile over all devices, for each update
            "crop": 256,  # pixels
            "augment": True,  # mirrored left to right
            "optimizer": optimizer(
                name="adam", schedule="linear", learning_rate=2e-4, constant_steps=500_000, betas=(0.5, 0.999)
            ),
            "ema": 0.0,  # decay of the deblurring generator's moving average; 0 = none
        }
    )


def loop() -> ConfigDict:
    """Cadences of the training loop; intervals are in steps."""
    return ConfigDict(
        {
            "log_every": 100,
            "evaluate_every": 5_000,
            "checkpoint_every": 5_000,
            "keep": 3,  # newest checkpoints kept: two in reserve, should the newest be damaged
            "keep_every": 100_000,  # steps; checkpoints of its multiples stay, to go back to (ten in the paper's 1M)
            "keep_best": 1,  # checkpoints of the highest validation PSNR kept: the last need not be the best
            "sample_images": 4,  # photos in a grid under samples/
            "bad_steps": 20,  # so many non-finite steps in a row stop the run: one is bad luck, twenty are a fault
            "log_images": False,  # write the names of the photos of every step to images.jsonl
            "wandb": "",  # Weights & Biases project; "" = off
        }
    )


def evaluation() -> ConfigDict:
    """How the finished system is scored."""
    return ConfigDict(
        {
            "images": 0,  # of the test set; 0 = all
            "rows": (),  # of the table, by name: ("deblurrer", "adapted"); () = all that the run has networks for
            "protocol": "auto",  # auto (the dataset's own) | standard | luma | nafnet | blur2blur | skimage | realblur
            "metrics": ("psnr", "ssim"),  # also psnr_y | ssim_y | ssim_3d | ssim_uniform | niqe | lpips | temporal
            "niqe_parameters": "",  # BasicSR's .npz or MATLAB's .mat; "" = fitted to scikit-image's photographs
            "lpips": ConfigDict(
                {
                    "vgg": "weights/vgg16.safetensors",  # converted torchvision weights
                    "lin": "weights/lpips_vgg.pth",  # the authors' linear layers, weights/v0.1/vgg.pth
                }
            ),
            "validation_images": 32,  # scored during training; those of a published dataset come from its test part
            "validation_crop": 256,  # pixels, centre crop of a validation photo
            "batch": 8,  # photos of one size that go through a network at once
            "megapixels": 8.0,  # in such a batch: bounds the memory; larger photos go through in tiles
            "save_images": False,  # all results as PNG, under evaluation/images/<set>/<row>/
            "fixed_filter": False,  # also score the best of a family of fixed filters, chosen with the truth
            "fixed_filter_images": 24,  # photos on whose centres it is chosen, each 20 passes of the deblurrer
            "oracle": False,  # also score the deblurrer on truly known-blurred images (generated blur only)
            "blur2blur_pairs": False,  # also train a translator with pairs of the learnt camera alone
            "paired": False,  # also train a deblurrer on the camera's own pairs, the upper bound (doubles the time)
            "true_kernels": False,  # also train a translator towards the true known kernels (generated blur only)
            "photographs": False,  # also score scikit-image's photographs under scenes.unknown_kernel
            "examples": 6,  # before/after pictures in the report, evenly spread over the set
            "ablation": "",  # the cell of configs/ablations.py or baselines.py that this run is, for b2b_jax.tables
            "extremes": 2,  # and those of the largest and of the smallest gain, as many of each
            "converter": converter(),
        }
    )


def converter() -> ConfigDict:
    """The converter check (paper, table 6): which share of translated photos is taken for the known blur."""
    return ConfigDict(
        {
            "enabled": False,  # trains a classifier of known against unknown blur
            "width": 64,  # channels of ResNet-18's first stage
            "input": "rgb",  # rgb | gradient: colour and content drown the cue of a small blur
            "steps": 5_000,
            "batch": 32,  # images of each kind
            "crop": 256,  # pixels, of training and of the photos that are judged
            "learning_rate": 1e-3,  # of Adam; then a cosine to 1e-6
            "images": 512,  # that are judged; 0 = all
        }
    )
