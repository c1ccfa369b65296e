package examples

import (
	"path/filepath"
	"testing"

	"usercast/internal/doctest"
)

// expressApp has what an app has in addition to what docs/authentication.md shows. Its store keeps each session in a file.
const expressApp = `
const fs = require("fs"), express = require("express"), session = require("express-session");
const app = express(), redis = require("redis").createClient({ url: process.env.REDIS_URL });
redis.on("error", console.error);

class Files extends session.MemoryStore { // MemoryStore keeps sessions as JSON
  set(id, data, done) { super.set(id, data, err => { this.write(); done(err); }); }
  touch(id, data, done) { super.touch(id, data, err => { this.write(); done(err); }); }
  destroy(id, done) { super.destroy(id, err => { this.write(); done(err); }); }
  write() { fs.writeFileSync("state/sessions", JSON.stringify(this.sessions)); }
}

app.use(session({ secret: "of a test", store: new Files(), resave: RESAVE, saveUninitialized: RESAVE, rolling: true, cookie: { maxAge: 1800_000 } }));
app.get("/", (req, res) => res.send("home"));
app.post("/login", (req, res) => { req.session.userId = 42; res.end(); });
`

// tryExpress runs what docs/authentication.md shows, with the settings of express-session that store most.
func tryExpress(t *testing.T) {
	code := shown(t, filesOf(t, "../docs/authentication.md", "js"), "app.js")
	modules, err := filepath.Abs("testdata/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	for _, resave := range []string{"false", "true"} {
		t.Run("resave="+resave, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := doctest.NewSession(t, dir, "NODE_PATH="+modules+":/usr/share/nodejs")
			write(t, dir, map[string]string{
				"app.js": "const RESAVE = " + resave + ";" + expressApp + code + `redis.connect().then(() => app.listen(process.env.PORT, "127.0.0.1"));`,
			})
			s.Do(doctest.Block{Mark: "run: app", Text: "mkdir state && exec node app.js"})
			s.Do(hubBlock)
			user := newBrowser(t, s)
			user.post("/login")
			wantCheckOnlyReads(t, []string{filepath.Join(dir, "state")}, "connect.sid", user)
			user.wantLogout(user.open())
		})
	}
}
