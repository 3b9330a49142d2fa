"""The error for a value that breaks a rule of its schema, or that its column cannot hold."""


class NotAccepted(ValueError):
    """A value is not accepted: the message says where and why, for the model and for people.

    ``rule`` is the broken rule in headrace's own words. It contains nothing of the value, so it can be shown to people
    who may not see rows.
    """

    def __init__(self, message: str, rule: str) -> None:
        super().__init__(message)
        self.rule = rule
