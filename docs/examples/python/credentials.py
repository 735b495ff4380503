"""Reads the current credential as a whole; Python 3 and nothing else."""
import os


class Refused(Exception):
    """The server said that the name or the password is wrong."""


def _field(path, dir_fd=None):
    opener = lambda name, flags: os.open(name, flags, dir_fd=dir_fd)
    with open(path, encoding="utf-8", newline="", opener=opener) as f:
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


def directory(path, fields):
    """Yields the credentials of a directory of versions: current, then next."""
    for link in ("current", "next"):
        for _ in range(8):  # a version is removed only after its link has moved on
            try:
                version = os.open(os.path.join(path, link), os.O_RDONLY | os.O_DIRECTORY)
                try:  # the link was followed once, for all fields
                    credential = {field: _field(field, version) for field in fields}
                finally:
                    os.close(version)
            except FileNotFoundError:
                continue
            yield credential
            break


def log_in(variables, connect, environ=os.environ):
    """Returns what connect(credential) does, of the first that is not Refused."""
    return first(candidates(variables, environ), connect)


def first(credentials, connect):
    """The same, of the credentials that candidates or directory yields."""
    last = LookupError("there is no whole credential")
    for credential in credentials:
        try:
            return connect(credential)
        except Refused as refusal:
            last = refusal
    raise last
