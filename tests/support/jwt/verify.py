"""Verifies a token as somebody would who knows the issuer's URL alone: by its discovery document and its key set.

    verify.py pyjwt|joserfc ISSUER CA_FILE AUDIENCE TOKEN_FILE

Prints the claims as JSON, or `refused:` and why.
"""

import json
import ssl
import sys
import urllib.request


def fetch(url, ca):
    with urllib.request.urlopen(url, context=ssl.create_default_context(cafile=ca)) as answer:
        return json.load(answer)


def discovered(issuer, ca):
    about = fetch(issuer + "/.well-known/openid-configuration", ca)
    if about["issuer"] != issuer:
        raise ValueError("the document is of another issuer")
    return fetch(about["jwks_uri"], ca), about["id_token_signing_alg_values_supported"]


def pyjwt(token, keys, algorithms, issuer, audience):
    import jwt

    kid = jwt.get_unverified_header(token).get("kid")
    key = jwt.PyJWKSet.from_dict(keys)[kid]
    needed = {"require": ["exp", "iat", "nbf", "iss", "sub", "aud", "jti"]}
    return jwt.decode(token, key, algorithms=algorithms, audience=audience, issuer=issuer, options=needed)


def joserfc(token, keys, algorithms, issuer, audience):
    from joserfc import jwt
    from joserfc.jwk import KeySet

    decoded = jwt.decode(token, KeySet.import_key_set(keys), algorithms=algorithms)
    named = {name: {"essential": True} for name in ["exp", "iat", "nbf", "sub", "jti"]}
    named.update(iss={"essential": True, "value": issuer}, aud={"essential": True, "value": audience})
    jwt.JWTClaimsRegistry(**named).validate(decoded.claims)
    return decoded.claims


def main():
    library, issuer, ca, audience, file = sys.argv[1:]
    # As it stands there, to the last byte.
    token = open(file, newline="").read()
    keys, algorithms = discovered(issuer, ca)
    verify = {"pyjwt": pyjwt, "joserfc": joserfc}[library]
    try:
        print(json.dumps(verify(token, keys, algorithms, issuer, audience)))
    except Exception as error:
        print(f"refused: {type(error).__name__}: {error}")


main()
