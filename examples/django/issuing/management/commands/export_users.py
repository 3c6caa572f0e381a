"""`manage.py export_users FILE`: Django's users as a users.yaml for Portcullis, with their passwords' hashes, so that
nobody has to choose a new password. Nothing in Django changes."""

import fcntl
import json
import os
import re
import tempfile
import time
from pathlib import Path

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

# The hashes of Django's that Portcullis can check; at the first login each becomes one of argon2id.
KNOWN = re.compile(
    r"pbkdf2_sha256\$[1-9][0-9]*\$[^$]+\$[A-Za-z0-9+/]{43}="
    r"|bcrypt(_sha256)?\$\$2[abxy]\$[0-9]{2}\$[./A-Za-z0-9]{53}"
    r"|argon2\$argon2(id|i|d)\$.+"
)
# Control characters, and what JSON and YAML do not both read as it stands.
UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff\ufffe\uffff]")
# Bytes of a user's name, as Portcullis takes it.
LONGEST = 255


class Command(BaseCommand):
    help = "Write Django's users, with their passwords' hashes, into a users.yaml for Portcullis."

    def add_arguments(self, parser):
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--replace", action="store_true", help="write over a file that is there: what the gateway wrote in it is lost"
        )

    def handle(self, *, file: Path, replace: bool, **_):
        model = get_user_model()
        before = users_of(file) if replace else {}
        now = int(time.time() * 1000)
        lines, without = [], []
        for user in model._default_manager.order_by("pk").prefetch_related("groups").iterator(chunk_size=1000):
            name = fit(user.get_username(), "user")
            # As text: simplejwt says user_id so, too.
            entry = {"active": user.is_active, "id": str(user.pk), "roles": sorted(map(role, user.groups.all()))}
            if KNOWN.fullmatch(user.password):
                entry = {"password": user.password, **entry}
            elif user.has_usable_password():
                without.append(name)
            # Sessions that began before this have ended: those of an older password, and those that had ended before.
            same = name in before and before[name].get("password") == entry.get("password")
            since = before[name].get("since") if same else now
            if replace and since:
                entry["since"] = since
            # JSON is YAML; a line a user, as `portcullis user` writes them.
            lines.append(f"{quoted(name)}: {quoted(entry)}\n")
        try:
            write(file, "".join(lines) or "{}\n", replace)
        except FileExistsError:
            raise CommandError(
                f"{file} is there already, and may hold passwords that were changed since; --replace writes over it"
            ) from None
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror}") from None
        self.stdout.write(f"users written to {file}: {len(lines)}")
        for name in without:
            self.stderr.write(f"{name}: Portcullis does not know this kind of hash: `portcullis user password` is needed")


def users_of(file: Path) -> dict[str, dict]:
    """The users that are in the file, where it is as this command and `portcullis user` write it."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        pairs = [json.loads("{" + line + "}") for line in lines if line != "{}"]
        return {name: user for pair in pairs for name, user in pair.items() if isinstance(user, dict)}
    except (FileNotFoundError, ValueError):
        return {}


def quoted(value) -> str:
    return json.dumps(value, ensure_ascii=False)


def fit(name: str, what: str) -> str:
    """A name that arrives in a header as it is; any other could be taken for somebody else's."""
    if not name or name != name.strip() or UNFIT.search(name) or len(name.encode()) > LONGEST:
        raise CommandError(
            f"{what} {name!r}: a name has 1 to {LONGEST} bytes, no space at its ends and no control characters"
        )
    return name


def role(group) -> str:
    if "," in group.name:
        raise CommandError(f"group {group.name!r}: the roles of a header are parted by commas; call it something else")
    return fit(group.name, "group")


def write(file: Path, text: str, replace: bool) -> None:
    """Writes the file whole or not at all, readable by its owner alone. Like Portcullis, which locks the folder while
    it edits the users, so that neither writes over the other."""
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        descriptor, fresh = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with open(descriptor, "w", encoding="utf-8") as writing:
                writing.write(text)
                writing.flush()
                os.fsync(descriptor)
            if replace:
                os.replace(fresh, file)
            else:
                # Unlike a rename, fails where there is a file.
                os.link(fresh, file)
        finally:
            Path(fresh).unlink(missing_ok=True)
        os.fsync(folder)
    finally:
        os.close(folder)
