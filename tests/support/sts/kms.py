"""What AWS KMS does and moto does not: digests, Ed25519, the limit of a message, and keys that sign no more.

moto makes the keys, names them, and signs what is not hashed; `patch` puts the rest in its place.
"""

import base64
import json

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from moto.core.exceptions import JsonRESTError
from moto.kms.exceptions import ValidationException
from moto.kms.models import Key, KmsBackend, kms_backends
from moto.kms.responses import KmsResponse
from moto.kms.utils import ECDSAPrivateKey, RSAPrivateKey

ED25519 = "ECC_NIST_EDWARDS25519"
HASHES = {
    "ECDSA_SHA_256": hashes.SHA256(),
    "ECDSA_SHA_384": hashes.SHA384(),
    "RSASSA_PKCS1_V1_5_SHA_256": hashes.SHA256(),
}


class Refused(JsonRESTError):
    code = 400


class Ed25519PrivateKey:
    def __init__(self):
        self.key = ed25519.Ed25519PrivateKey.generate()

    def sign(self, message, _algorithm):
        return self.key.sign(message)

    def public_key(self):
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_key().public_bytes(serialization.Encoding.DER, form)


def usable(response):
    """The key that is meant, if it is in a state in which KMS uses it."""
    response._validate_key_id(response._get_param("KeyId"))
    key = response.kms_backend.describe_key(response._get_param("KeyId"))
    if key.key_state == "PendingDeletion":
        raise Refused("KMSInvalidStateException", f"{key.arn} is pending deletion.")
    if not key.enabled:
        raise Refused("DisabledException", f"{key.arn} is disabled.")
    return key


def sign(response):
    key, message = usable(response), response._get_param("Message")
    algorithm, kind = response._get_param("SigningAlgorithm"), response._get_param("MessageType", "RAW")
    if algorithm not in key.signing_algorithms or len(message) > 4096:
        raise ValidationException("1 validation error detected")
    if kind == "RAW":
        signature = key.private_key.sign(message, algorithm)
    else:
        used = HASHES[algorithm]
        if len(message) != used.digest_size:
            raise ValidationException("Digest is invalid length for algorithm " + algorithm)
        how = [ec.ECDSA(Prehashed(used))] if algorithm.startswith("ECDSA") else [padding.PKCS1v15(), Prehashed(used)]
        signature = key.private_key.private_key.sign(message, *how)
    told = {"KeyId": key.arn, "Signature": base64.b64encode(signature).decode(), "SigningAlgorithm": algorithm}
    return json.dumps(told)


def patch():
    create_key, public_key, algorithms = KmsResponse.create_key, KmsResponse.get_public_key, Key.signing_algorithms
    schedule_deletion = KmsBackend.schedule_key_deletion

    def create(response):
        asked = json.loads(response.body)
        is_new = asked["KeySpec"] == ED25519
        if is_new:
            response.body = json.dumps(dict(asked, KeySpec="ECC_NIST_P256"))
        told = create_key(response)
        if is_new:
            key = response.kms_backend.keys[json.loads(told)["KeyMetadata"]["KeyId"]]
            key.key_spec, key.private_key = ED25519, Ed25519PrivateKey()
        return told

    def public(response):
        key = usable(response)
        # By its ARN, as KMS does.
        return json.dumps(dict(json.loads(public_key(response)), KeyId=key.arn, KeySpec=key.key_spec))

    def signing(key):
        new = ["ED25519_SHA_512", "ED25519_PH_SHA_512"]
        return new if key.key_spec == ED25519 else algorithms.fget(key)

    def schedule(backend, key_id, days):
        # Its responses pass on what they were given; the backend knows ids alone.
        return schedule_deletion(backend, backend.get_key_id(key_id), days)

    KmsResponse.create_key, KmsResponse.get_public_key, KmsResponse.sign = create, public, sign
    KmsBackend.schedule_key_deletion = schedule
    Key.signing_algorithms = property(signing)


def refusal(error):
    """Of whom IAM or a signature does not let in, whom moto tells in XML."""
    names = {"AccessDenied": "AccessDeniedException", "InvalidClientTokenId": "UnrecognizedClientException"}
    code = names.get(error["Code"], "InvalidSignatureException")
    return {"__type": f"com.amazonaws.kms#{code}", "Message": error["Message"]}


def keys(account, region):
    """Every key: its aliases, what it is, and its state."""
    return [
        {"aliases": sorted(key.aliases), "spec": key.key_spec, "state": key.key_state, "description": key.description}
        for key in kms_backends[account][region].keys.values()
    ]


def exchange(account, region, alias, spec, pem):
    """Another key in the place of one."""
    key = kms_backends[account][region].describe_key(alias)
    private = serialization.load_pem_private_key(pem.encode(), None)
    key.private_key = RSAPrivateKey(private.key_size) if spec.startswith("RSA") else ECDSAPrivateKey(spec)
    key.key_spec, key.private_key.private_key = spec, private


def enable(account, region, alias, enabled):
    key = kms_backends[account][region].describe_key(alias)
    key.enabled, key.key_state = enabled, "Enabled" if enabled else "Disabled"
