"""The errors for bytes that are no picture, shared by those who read headers."""


class BrokenPictureError(Exception):
    """The bytes are no picture that can be read; the message says why, without the name of the file."""

    @classmethod
    def cut_off(cls) -> "BrokenPictureError":
        """For a file that ends before the picture does."""
        return cls("is cut off: the file ends before the picture does")


class UnreadKindError(BrokenPictureError):
    """The picture may be whole, but its kind is not read; the message also says what is allowed."""
