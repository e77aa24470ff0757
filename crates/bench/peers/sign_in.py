"""sign_in.py PORT: registers somebody, signs them in, and prints the header of their requests."""
import json
import secrets
import sys
import urllib.parse
import urllib.request

base = f"http://127.0.0.1:{sys.argv[1]}/api/v1"


def post(path, body, media_type):
    request = urllib.request.Request(base + path, body.encode(), {"Content-Type": media_type})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


email, password = f"bench-{secrets.token_hex(6)}@example.com", secrets.token_hex(16)
someone = {"email": email, "password": password, "display_name": "Bench"}
post("/users", json.dumps(someone), "application/json")
grant = {"grant_type": "password", "username": email, "password": password}
token = post("/auth/token", urllib.parse.urlencode(grant), "application/x-www-form-urlencoded")["access_token"]
print(json.dumps({"Authorization": f"Bearer {token}"}))
