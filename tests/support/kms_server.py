"""A KMS for tests: moto's, with what AWS refuses and moto does not.

Binds a free port of 127.0.0.1 and prints it. Obeys its standard input: "stop" and "start" close and open the port, the keys
stay; its end ends the server, so nothing outlives the process that started it.
"""

import logging
import os
import sys
from threading import Thread

from moto.core.exceptions import JsonRESTError
from moto.kms import utils
from moto.kms.models import KmsBackend
from moto.kms.responses import KmsResponse
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

# How moto does it, before anything is replaced.
moto_encrypt, moto_decrypt, moto_re_encrypt = KmsBackend.encrypt, KmsBackend.decrypt, KmsResponse.re_encrypt


def check_state(backend, key_id):
    """All cryptographic operations need an enabled key: see "Key states of KMS keys" in AWS's documentation."""
    key = backend.keys[backend.any_id_to_key_id(key_id)]
    if key.key_state == "Disabled":
        raise JsonRESTError("DisabledException", f"{key.arn} is disabled.")
    if key.key_state != "Enabled":
        raise JsonRESTError("KMSInvalidStateException", f"{key.arn} is pending deletion.")


def encrypt(self, key_id, plaintext, encryption_context):
    """Encrypt, GenerateDataKey, and the second half of ReEncrypt."""
    check_state(self, key_id)
    return moto_encrypt(self, key_id, plaintext, encryption_context)


def decrypt(self, ciphertext_blob, encryption_context, key_id=None):
    """Decrypt, and the first half of ReEncrypt."""
    if not ciphertext_blob:
        raise JsonRESTError("ValidationException", "Value at 'ciphertextBlob' failed to satisfy constraint: Member must have length greater than or equal to 1")
    plaintext, arn = moto_decrypt(self, ciphertext_blob, encryption_context)
    check_state(self, arn)
    if key_id is not None and self.keys[self.any_id_to_key_id(key_id)].arn != arn:
        raise JsonRESTError("IncorrectKeyException", "The key ID in the request does not identify a CMK that can perform this operation.")
    return plaintext, arn


def re_encrypt(self):
    """Moto does not look at the source key."""
    source = self._get_param("SourceKeyId")
    if source is not None:
        self._validate_key_id(source)
        self.kms_backend.decrypt(self._get_param("CiphertextBlob"), self._get_param("SourceEncryptionContext", {}), source)
    return moto_re_encrypt(self)


KmsBackend.encrypt, KmsBackend.decrypt, KmsResponse.re_encrypt = encrypt, decrypt, re_encrypt


# The ids of multi-region keys are longer than moto's ciphertexts have room for: they would open nothing.
KEY_ID_LEN = 40
utils.HEADER_LEN += KEY_ID_LEN - utils.KEY_ID_LEN
utils.CIPHERTEXT_HEADER_FORMAT = f">{KEY_ID_LEN}s{utils.IV_LEN}s{utils.TAG_LEN}s"
deserialize = utils._deserialize_ciphertext_blob


def deserialize_padded(ciphertext_blob):
    """The shorter ids are padded."""
    found = deserialize(ciphertext_blob)
    return found._replace(key_id=found.key_id.rstrip("\0"))


utils._deserialize_ciphertext_blob = deserialize_padded


class Handler(MotoRequestHandler):
    """One request for each connection: a closed port closes them all."""

    protocol_version = "HTTP/1.0"


def listen(port):
    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=Handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


logging.getLogger("werkzeug").setLevel(logging.ERROR)
app = DomainDispatcherApplication(create_backend_app)
server = listen(0)
port = server.server_address[1]
print(port, flush=True)
for command in sys.stdin:
    if command == "stop\n":
        server.shutdown()
        server.server_close()
    else:
        server = listen(port)
    print(command, end="", flush=True)
os._exit(0)
