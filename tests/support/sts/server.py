"""AWS's STS and KMS on loopback: moto, which verifies SigV4 with botocore, and a signer that is botocore's own.

Listens on the port that is given; prints one line of JSON when it does: the credentials of a user and of a role's session.
Ends when its standard input does.

moto answers in XML alone; STS answers in JSON where `Accept` says so. moto does not look at the body where the
request has a hash of it, and not at the clock; STS does both.
"""

import hashlib
import io
import json
import os
import secrets
import sys
import threading
import time
from datetime import datetime, timedelta, timezone

import kms
import xmltodict
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto import settings
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import create_backend_app
from moto.sts.models import sts_backends
from werkzeug.serving import WSGIRequestHandler, make_server

# Not a request of a job's, so it needs no signature.
ASSUME = b"Action=AssumeRoleWithWebIdentity"
AGE = 900
ACCOUNT = "123456789012"
AUTHENTICATION = threading.Lock()
TOLD = {}


class Quiet(WSGIRequestHandler):
    def log_request(self, *_):
        pass


class Front:
    """What STS does and moto does not."""

    def __init__(self):
        kms.patch()
        self.moto = {service: create_backend_app(service) for service in ("sts", "kms")}

    def __call__(self, environ, start_response):
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        path = environ["PATH_INFO"]
        if path in CONTROLS:
            return answer(start_response, 200, CONTROLS[path](json.loads(body)))
        is_kms = environ.get("HTTP_X_AMZ_TARGET", "").startswith("TrentService.")
        if path != "/":
            status, text = machine(environ["REQUEST_METHOD"], path, environ)
            start_response(f"{status} Told", [])
            return [text.encode()]
        refusal = refuse(environ, body)
        if refusal and is_kms:
            return answer(start_response, 400, kms.refusal({"Code": refusal, "Message": "as KMS would"}))
        if refusal:
            return answer(start_response, 403, {"Error": {"Code": refusal, "Message": "as STS would"}})
        with AUTHENTICATION:
            settings.INITIAL_NO_AUTH_ACTION_COUNT = float("inf") if body.startswith(ASSUME) else 0
            status, headers, text = self.forward("kms" if is_kms else "sts", environ, body)
        if is_kms and text.startswith(b"<?xml"):
            return answer(start_response, 400, kms.refusal(translate(text)["Error"]))
        if is_kms or environ.get("HTTP_ACCEPT") != "application/json":
            start_response(status, headers)
            return [text]
        return answer(start_response, int(status[:3]), translate(text))

    def forward(self, service, environ, body):
        told = []
        environ = dict(environ, **{"wsgi.input": io.BytesIO(body)})

        def start(status, headers, exc_info=None):
            told.append((status, headers))

        text = b"".join(self.moto[service](environ, start))
        return told[0][0], told[0][1], text


def machine(method, path, environ):
    """The endpoints that AWS has on a machine: the instance metadata service, version 2, and a container's."""
    session = TOLD["session"]
    credentials = {
        "Code": "Success",
        "AccessKeyId": session["access_key"],
        "SecretAccessKey": session["secret_key"],
        "Token": session["token"],
        "Expiration": (datetime.now(timezone.utc) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    if path == "/container":
        allowed = environ.get("HTTP_AUTHORIZATION") == TOLD["container_token"]
        return (200, json.dumps(credentials)) if allowed else (401, "no")
    if path == "/latest/api/token":
        return (200, TOLD["instance_token"]) if method == "PUT" else (405, "no")
    if environ.get("HTTP_X_AWS_EC2_METADATA_TOKEN") != TOLD["instance_token"]:
        return 401, "no"
    roles = "/latest/meta-data/iam/security-credentials/"
    texts = {roles: "deploy", roles + "deploy": json.dumps(credentials)}
    texts["/latest/meta-data/placement/region"] = "eu-west-1"
    return (200, texts[path]) if path in texts else (404, "no")


def refuse(environ, body):
    if "HTTP_AUTHORIZATION" not in environ and not body.startswith(ASSUME):
        return "MissingAuthenticationToken"
    hashed = environ.get("HTTP_X_AMZ_CONTENT_SHA256")
    if hashed and hashed != hashlib.sha256(body).hexdigest():
        return "SignatureDoesNotMatch"
    date = environ.get("HTTP_X_AMZ_DATE")
    if date:
        signed_at = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
        if abs((datetime.now(timezone.utc) - signed_at).total_seconds()) > AGE:
            return "SignatureDoesNotMatch"
    return None


def translate(text):
    """The same answer in JSON, without namespaces."""
    value = xmltodict.parse(text)
    for element in value.values():
        element.pop("@xmlns", None)
    if "ErrorResponse" in value:
        error = value["ErrorResponse"]["Errors"]["Error"]
        return {"Error": {"Code": error["Code"], "Message": error["Message"]}}
    return value


def answer(start_response, status, value):
    start_response(f"{status} Told", [("Content-Type", "application/json")])
    return [json.dumps(value).encode()]


def sign(asked):
    """Headers of a request as botocore signs it."""
    credentials = Credentials(asked["access_key"], asked["secret_key"], asked.get("token"))
    request = AWSRequest("POST", asked["url"], headers=asked["headers"], data=asked["body"])
    auth = SigV4Auth(credentials, asked.get("service", "sts"), asked["region"])
    auth.add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


def allow(policy):
    """The one policy of the user `authority`, which may do nothing without."""
    iam_backends[ACCOUNT]["aws"].put_user_policy("authority", "keys", json.dumps(policy))


def spare(_asked):
    """Another process that knows all that this one does by now; once this one is killed, a line on its input has it serve."""
    parent = os.getpid()
    with AUTHENTICATION:
        child = os.fork()
    if child:
        return {"id": child}
    # Whoever has a connection sees it end with this process.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    while os.getppid() == parent:
        time.sleep(0.01)
    if os.read(0, 1):
        serve()
    os._exit(0)


CONTROLS = {
    "/spare": spare,
    "/sign": sign,
    "/allow": allow,
    "/keys": lambda asked: kms.keys(ACCOUNT, asked["region"]),
    "/exchange": lambda asked: kms.exchange(ACCOUNT, asked["region"], asked["alias"], asked["spec"], asked["pem"]),
    "/enable": lambda asked: kms.enable(ACCOUNT, asked["region"], asked["alias"], asked["enabled"]),
}


def prepare():
    """A user, and a session of a role, in moto's usual account."""
    iam = iam_backends[ACCOUNT]["aws"]
    iam.create_user("us-east-1", "deployer", "/ci/")
    user = iam.create_access_key("deployer")
    iam.create_user("us-east-1", "authority", "/")
    authority = iam.create_access_key("authority")
    role = f"arn:aws:iam::{ACCOUNT}:role/deploy"
    session = sts_backends[ACCOUNT]["aws"].assume_role("us-east-1", "i-0123", role, None, 3600, None)
    return {
        "role": role,
        "container_token": secrets.token_hex(16),
        "instance_token": secrets.token_hex(16),
        "user": {"access_key": user.access_key_id, "secret_key": user.secret_access_key},
        "authority": {"access_key": authority.access_key_id, "secret_key": authority.secret_access_key},
        "session": {
            "access_key": session.access_key_id,
            "secret_key": session.secret_access_key,
            "token": session.session_token,
        },
    }


def serve(listens=lambda: None):
    """Serves until the input ends."""
    server = make_server("127.0.0.1", int(sys.argv[1]), FRONT, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    listens()
    while os.read(0, 1):
        pass


FRONT = Front()
TOLD.update(prepare())
serve(lambda: print(json.dumps(TOLD), flush=True))
