"""Guidance by an image's embedding: IP-Adapter's weights, CLIP's two towers, and an estimate of the edited image's embedding."""
