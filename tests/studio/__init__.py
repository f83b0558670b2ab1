from ..need import need

need("gradio")
