"""AppArmor profiles as texts: whether one will do for a container, how two differ, and what stacking asks for in addition.

    language    a text as statements and blocks; no I/O
    rule        a statement as what it permits; patterns of names; no I/O
    peers       which rules for peers a stacked label passes by, and the profile that knows it; no I/O
    compare     what one profile permits that the other does not, as far as that is certain; no I/O
    source      a file by apparmor_parser(8), or a name by the kernel
    command · check · loading · diff · derive      the verb `profile`
"""
