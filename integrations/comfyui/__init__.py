"""Nodes of sdist for ComfyUI: copy or link this folder into custom_nodes/."""

from .nodes import SdistEdit, SdistModel

NODE_CLASS_MAPPINGS = {"SdistModel": SdistModel, "SdistEdit": SdistEdit}
NODE_DISPLAY_NAME_MAPPINGS = {"SdistModel": "sdist model", "SdistEdit": "sdist edit"}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
