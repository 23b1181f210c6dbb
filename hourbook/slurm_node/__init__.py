"""The collector that runs on a login node: needs nothing but Python 3.9 and Slurm's `sacct`, and imports nothing else.

`hourbook collect slurm` runs it here; `hourbook collect program` writes it into one file to copy to a login node.
"""
