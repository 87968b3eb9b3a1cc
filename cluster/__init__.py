"""Popcomm on many machines: nodes simulated on one, files for `ray up` and KubeRay, an image, and their validation."""
