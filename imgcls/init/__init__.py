"""The command ``init``: a configuration fitted to a folder of photos and to this machine, without heavy imports."""
