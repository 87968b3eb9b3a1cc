"""Faults on purpose: what a training does when processes, environments, disks and nodes fail it."""
