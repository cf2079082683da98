"""The values of the tables of Blur2Blur (Pham et al., CVPR 2024, arXiv 2403.16205), as its text states them.

Each cell is a tuple: PSNR in dB and SSIM, or the PSNR alone where the paper gives no more; counts; per cent. The known
blur is GoPro's throughout. Columns are named as the datasets in results.json.
"""

Values = tuple[float, ...]
Cells = dict[str, Values]  # by dataset

PHOTOS: dict[str, Cells] = {  # table 1
    "blur": {"rb2v": (5400,), "reds": (14400,), "rsblur": (8115,), "gopro": (1261,)},
    "sharp": {"rb2v": (3600,), "reds": (9600,), "rsblur": (5410,), "gopro": (842,)},
    "test": {"rb2v": (2053,), "reds": (3000,), "rsblur": (8301,), "gopro": (1111,)},
}


def _three(rb2v: Values, reds: Values, rsblur: Values) -> Cells:
    return {"rb2v": rb2v, "reds": reds, "rsblur": rsblur}


METHODS: dict[tuple[str, str], Cells] = {  # table 2, by deblurrer ("" for none) and row
    ("nafnet", "deblurrer"): _three((24.78, 0.714), (25.80, 0.880), (26.33, 0.790)),
    ("nafnet", "imgaug"): _three((22.10, 0.644), (25.07, 0.853), (23.53, 0.659)),
    ("nafnet", "blur2blur"): _three((26.98, 0.812), (28.11, 0.893), (29.00, 0.857)),
    ("nafnet", "paired"): _three((28.72, 0.883), (29.09, 0.927), (33.06, 0.888)),
    ("nafnet", "bsrgan"): _three((23.31, 0.645), (26.39, 0.803), (27.11, 0.810)),
    ("nafnet", "rsblur"): _three((23.42, 0.603), (26.32, 0.812), (26.98, 0.798)),
    ("restormer", "deblurrer"): _three((23.34, 0.698), (25.43, 0.775), (25.98, 0.788)),
    ("restormer", "imgaug"): _three((23.78, 0.655), (24.76, 0.753), (23.34, 0.651)),
    ("restormer", "blur2blur"): _three((25.97, 0.750), (27.55, 0.885), (28.89, 0.850)),
    ("restormer", "paired"): _three((27.43, 0.849), (28.23, 0.916), (32.87, 0.874)),
    ("", "cyclegan"): _three((21.21, 0.582), (23.92, 0.775), (23.34, 0.782)),
    ("", "dualgan"): _three((21.02, 0.556), (23.50, 0.700), (22.78, 0.704)),
}
RATIO: dict[str, Cells] = {  # table 3, PSNR alone
    "0.5": {"rb2v": (26.02,), "reds": (27.53,)},
    "0.6": {"rb2v": (26.98,), "reds": (28.11,)},
    "0.7": {"rb2v": (26.92,), "reds": (28.10,)},
    "0.8": {"rb2v": (25.98,), "reds": (27.00,)},
    "0.9": {"rb2v": (24.32,), "reds": (26.43,)},
}
GENERATOR: dict[str, Cells] = {  # table 4
    "unet": {"rb2v": (22.54, 0.732)},
    "mimo_unet": {"rb2v": (26.98, 0.812)},
    "nafnet": {"rb2v": (20.54, 0.686)},
}
SIZE: dict[str, Cells] = {  # table 5, PSNR alone
    "0.25": {"rb2v": (25.45,)},
    "0.5": {"rb2v": (25.93,)},
    "0.75": {"rb2v": (26.32,)},
    "1": {"rb2v": (26.98,)},
}
CONVERTER: dict[str, Cells] = {  # table 6
    "input": {"rb2v": (11.24, 6.85)},
    "converted": {"rb2v": (86.67, 96.53)},
}
