package examples

import (
	"path/filepath"
	"strings"
	"testing"

	"usercast/internal/doctest"
	"usercast/internal/need"
)

// authJSApp logs in as Auth.js does: with an encrypted token in a cookie. Its session check calls getToken, as the one for
// NextAuth 4 that docs/authentication.md shows. Auth.js names the cookie and derives the key from that name.
const authJSApp = `
import http from "node:http";
import { encode, getToken } from "@auth/core/jwt";

const secret = "s".repeat(32), name = "authjs.session-token";

http.createServer(async (req, res) => {
  if (req.url === "/login") {
    const token = await encode({ token: { sub: "42" }, secret, salt: name });
    res.setHeader("Set-Cookie", [name + "=" + token + "; Path=/; HttpOnly", "size=" + token.split(".").length + "; Path=/"]);
  } else if (req.url === "/usercast/session") {
    const token = await getToken({ req: { headers: req.headers }, secret });
    if (!token?.sub) return res.writeHead(401).end();
    res.setHeader("X-User-ID", token.sub);
  }
  res.end();
}).listen(process.env.PORT, "127.0.0.1");
`

// TestAuthJS shows what docs/authentication.md says about the session cookie of Auth.js: the hub cannot read it, but the
// app can.
func TestAuthJS(t *testing.T) {
	t.Parallel()
	need.Program(t, "node")
	need.File(t, "testdata/node_modules/@auth/core", "npm --prefix examples/testdata ci")
	modules, err := filepath.Abs("testdata/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{"app.mjs": authJSApp})
	s := doctest.NewSession(t, dir)
	s.Do(doctest.Block{Mark: "run: app", Text: "ln -s " + modules + " node_modules && exec node app.mjs"})
	s.Do(hubBlock)
	ada := newBrowser(t, s)
	ada.wantChecks(401)
	ada.post("/login")
	if parts := ada.cookies("authjs.session-token"); len(parts) != 1 || parts[0].Value != "5" {
		t.Errorf("the token of Auth.js is not encrypted: %v", parts)
	}
	ada.wantChecks(200)

	s.Do(doctest.Block{Mark: "run: hub", Text: "USERCAST_JWT_SECRET=" + strings.Repeat("s", 32) +
		" usercast serve --auth jwt --jwt-cookie authjs.session-token --allow-origin http://127.0.0.1:3000"})
	ada.wantChecks(401)
}
