"""The mounts of config.json: what their options mean, and the steps that make them.

Every mount is first a detached tree behind a descriptor: a clone of a directory of the host (open_tree) or a new filesystem
(fsopen … fsmount). Its attributes are set while nobody can reach it, and only then it is moved onto its destination, which was opened
inside the container's root and nowhere else (RESOLVE_IN_ROOT). So no symlink of an image leads a mount astray, and there is no moment
in which a mount is there without its flags; a tmpfs and /dev alone become read-only last of all, since something is made in them
before. open_tree(2), fsopen(2), mount_setattr(2): Linux 5.2 to 5.12.
"""
