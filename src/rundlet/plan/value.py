"""What plans, and what they are made of, have in common."""


class Value:
    """Compared, hashed and printed by its fields; never changed once made."""

    __slots__: "tuple[str, ...]" = ()

    def fields(self) -> "tuple[object, ...]":
        """The values of the slots, in their order."""
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and type(self) is type(other) and self.fields() == other.fields()

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.fields()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.fields()))})"
