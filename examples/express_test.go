package examples

import (
	"path/filepath"
	"strings"
	"testing"

	"usercast/internal/doctest"
)

// expressApp is an app without the code of the pages. Its store saves each session in a file.
const expressApp = `
const fs = require("fs"), express = require("express"), session = require("express-session");
const app = express();
let comments = 0;

class Files extends session.MemoryStore { // MemoryStore keeps sessions as JSON
  set(id, data, done) { super.set(id, data, err => { this.write(); done(err); }); }
  touch(id, data, done) { super.touch(id, data, err => { this.write(); done(err); }); }
  destroy(id, done) { super.destroy(id, err => { this.write(); done(err); }); }
  write() { fs.writeFileSync("state/sessions", JSON.stringify(this.sessions)); }
}

app.use(session({ secret: "of a test", store: new Files(), resave: RESAVE, saveUninitialized: RESAVE, rolling: true, cookie: { maxAge: 1800_000 } }));
app.get("/", (req, res) => res.send("home"));
app.post("/login", (req, res) => { req.session.userId = 42; res.end(); });
app.set("views", ".").set("view engine", "html").engine("html", (file, page, done) => done(null,
  '<ul id="inbox" data-position="' + page.position + '">' + page.messages.map(m => "<li>" + m.text + "</li>") + "</ul>"));
async function recentMessages(userId) {
  publish("user-" + userId + ":activity", "late");
  return [{ id: 1, text: "first" }];
}
app.get("/comments", (req, res) => res.send(String(comments)));
app.post("/comment", (req, res) => {
  const userId = req.session.userId;
  comments++;
  COMMENT
  res.end();
});
`

// tryExpress runs the code of the pages with each Redis client, with settings of express-session that save sessions often.
func tryExpress(t *testing.T) {
	publishing := filesOf(t, publishPage, "js")
	rendered := filesOf(t, renderPage, "js")
	code := shown(t, filesOf(t, authPage, "js"), "app.js") + shown(t, filesOf(t, logoutPage, "js"), "app.js") +
		shown(t, rendered, "position.js") + shown(t, rendered, "inbox.js")
	modules, err := filepath.Abs("testdata/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, resave, client, path string }{
		{"redis 4", "false", "redis.js", "/usr/share/nodejs"},
		{"redis 6", "true", "redis.js", modules},
		{"ioredis", "true", "ioredis.js", modules},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := doctest.NewSession(t, dir, "NODE_PATH="+test.path+":"+modules)
			write(t, dir, map[string]string{
				"inbox.html": "", // the engine of the test does not read it
				"app.js": "const RESAVE = " + test.resave + ";" + shown(t, publishing, test.client) +
					strings.Replace(expressApp, "COMMENT", shown(t, publishing, "comment.js"), 1) + code + `app.listen(process.env.PORT, "127.0.0.1");`,
			})
			s.Do(doctest.Block{Mark: "run: app", Text: "mkdir state && exec node app.js"})
			s.Do(hubBlock)
			user := newBrowser(t, s)
			user.post("/login")
			wantCheckOnlyReads(t, []string{filepath.Join(dir, "state")}, "connect.sid", user)
			stream := user.open()
			user.post("/comment")
			stream.want(`{"kind":"comment","id":7}`)
			user.wantLogout(stream)
			user.post("/login")
			user.wantRendered(hubBlock)
			user.wantWithoutRedis("/comment", func() int { return user.number("/comments") })
		})
	}
}
