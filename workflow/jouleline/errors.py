"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Bad input or an environment that cannot do what was asked.

    The message is one line: what is wrong, where, and the remedy. Entry points print it as
    ``error: <message>`` and exit with ``exit_code`` (2 unless said otherwise), without a traceback.
    """

    def __init__(self, message: str, exit_code: int = 2):
        super().__init__(message)
        self.exit_code = exit_code
