"""Whether the hub can be reached, found out in seconds.

`from_pretrained` asks for every file of a name, five times each with longer and longer waits, before it says that there
is no connection: a minute or two for a mistyped folder name, and as long for a model that is here already.
"""

from __future__ import annotations

import ssl
import urllib.error
import urllib.parse
import urllib.request

from editsafety.errors import sentence_of

SECONDS = 10.0


def cannot_reach() -> str | None:
    """Why the hub cannot be reached from here, as a clause; None where something answers there, whatever it says.

    Proxies of the environment are used, as by the hub's own client.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    place = urllib.parse.urlsplit(constants.ENDPOINT)
    bare = place._replace(netloc=place.netloc.rpartition("@")[2]).geturl()  # whether it answers is no secret
    try:
        with urllib.request.urlopen(urllib.request.Request(bare, method="HEAD"), timeout=SECONDS):
            return None
    except urllib.error.HTTPError:
        return None  # it answers
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLError):
            return None  # the hub's own client may know other certificates
        return f"{bare} cannot be reached ({sentence_of(reason) if isinstance(reason, Exception) else reason})"
