"""The one exception that speaks to the user."""


class UserError(Exception):
    """A mistake that the user can correct.

    The message is one sentence that says what is wrong and what to do. The commands print it as
    `error: ...` without a traceback and exit with code 1; as a library, maskjax raises it.
    """
