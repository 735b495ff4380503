"""Reads the current credential as a whole; Python 3 and nothing else."""
import os


class Refused(Exception):
    """The server said that the name or the password is wrong."""


def _field(path):
    with open(path, encoding="utf-8", newline="") as f:
        text = f.read()
    if text.endswith("\n"):  # one newline, and no more
        text = text[:-1].removesuffix("\r")
    return text


def candidates(variables, environ=os.environ):
    """Yields the whole credentials in the order in which to try them.

    variables says which field stands behind which variable:
    {"POSTGRES_USER": "username", "POSTGRES_PASSWORD": "password"}.
    """
    found, taken = [], False
    for file, plain in (("_FILE", ""), ("_FILE_NEW", "_NEW"), ("", "")):
        if file and not any(environ.get(name + file) for name in variables):
            continue
        if not file and taken:  # its plain values belong to the current one
            continue
        credential, used_plain = {}, False
        try:
            for name, field in variables.items():
                if file and environ.get(name + file):
                    credential[field] = _field(environ[name + file])
                else:
                    credential[field] = environ.get(name + plain, "")
                    used_plain = True
        except FileNotFoundError:
            continue
        if not all(credential.values()):
            continue
        taken = taken or (file == "_FILE" and used_plain)
        if credential not in found:
            found.append(credential)
            yield credential


def log_in(variables, connect, environ=os.environ):
    """Returns what connect(credential) does, of the first that is not Refused."""
    last = LookupError("there is no whole credential")
    for credential in candidates(variables, environ):
        try:
            return connect(credential)
        except Refused as refusal:
            last = refusal
    raise last
