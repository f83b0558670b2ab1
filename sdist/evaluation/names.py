"""How a metric is called where people read, and which way is better."""

from typing import Literal, NamedTuple


class Metric(NamedTuple):
    label: str
    better: Literal["higher", "lower"]

    @property
    def arrow(self) -> str:
        return "↑" if self.better == "higher" else "↓"


METRICS = {
    "clip_t": Metric("CLIP-T", "higher"),
    "clip_r": Metric("CLIP-R", "higher"),
    "clip_auc": Metric("CLIP-AUC", "higher"),
    "l1": Metric("L1", "lower"),
    "l1_star": Metric("L1*", "lower"),
    "l2": Metric("L2", "lower"),
    "clip_i": Metric("CLIP-I", "higher"),
    "clip_i_star": Metric("CLIP-I*", "higher"),
    "dino": Metric("DINO", "higher"),
    "structure_distance": Metric("Structure distance", "lower"),
    "psnr": Metric("PSNR", "higher"),
    "mse": Metric("MSE", "lower"),
    "ssim": Metric("SSIM", "higher"),
    "lpips": Metric("LPIPS", "lower"),
    "clip_whole": Metric("CLIP whole", "higher"),
    "clip_edited": Metric("CLIP edited", "higher"),
}
