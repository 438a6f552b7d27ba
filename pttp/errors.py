"""What can go wrong for a user. Every message is a sentence that says what to do; the page and the command line show it as it is."""


class PTTPError(Exception):
    """Any mistake that a user can mend, or a circumstance that a user should know of."""


class BadImage(PTTPError):
    """The file is not a picture that can be read, or it is too large."""


class BadInput(PTTPError):
    """An argument other than the picture does not fit."""


class WeightsError(PTTPError):
    """Weights could not be found, fetched, checked or loaded."""


class MessageTooLong(BadInput):
    """A StegaStamp carries seven bytes."""


class NoStampFound(PTTPError):
    """No stamp could be read in this picture."""


class NoFaceFound(PTTPError):
    """No face was found in this picture."""


class NothingFound(PTTPError):
    """At this point there is nothing that the network knows as an object."""
