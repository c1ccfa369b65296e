// A small app whose logged-in users hear messages at once: net/http and go-redis.
package main

import (
	"cmp"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"regexp"
	"sync"

	"github.com/redis/go-redis/v9"
)

//go:embed page.html
var page []byte

var sessions sync.Map // session id -> user; yours is in a database

var name = regexp.MustCompile(`^[a-z0-9]{1,32}$`)

func main() {
	options, err := redis.ParseURL(cmp.Or(os.Getenv("REDIS_URL"), "redis://127.0.0.1:6379"))
	if err != nil {
		log.Fatal(err)
	}
	rdb := redis.NewClient(options)
	publish := func(r *http.Request, channel string, message map[string]string) int {
		payload, _ := json.Marshal(message) // cannot fail
		if err := rdb.Publish(r.Context(), channel, payload).Err(); err != nil {
			log.Print(err)
			return 500
		}
		return 204
	}
	// A handler answers with a status; user is "" when nobody is logged in.
	handle := func(pattern string, handler func(w http.ResponseWriter, r *http.Request, session, user string) int) {
		http.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			var session, user string
			if cookie, err := r.Cookie("session"); err == nil {
				session = cookie.Value
			}
			if value, ok := sessions.Load(session); ok {
				user = value.(string)
			}
			w.WriteHeader(handler(w, r, session, user))
		})
	}
	setSession := func(w http.ResponseWriter, id string, maxAge int) { // behind HTTPS with Secure, too
		http.SetCookie(w, &http.Cookie{Name: "session", Value: id, Path: "/", MaxAge: maxAge, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	}

	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { w.Write(page) })

	// The hub asks here, with the browser's cookies, who wants a stream.
	handle("GET /usercast/session", func(w http.ResponseWriter, _ *http.Request, _, user string) int {
		if user == "" {
			return 401
		}
		w.Header().Set("X-User-ID", user)
		return 200
	})
	handle("POST /login", func(w http.ResponseWriter, r *http.Request, _, _ string) int {
		if !name.MatchString(r.FormValue("name")) { // here a password would be checked
			return 400
		}
		id := rand.Text()
		sessions.Store(id, r.FormValue("name"))
		setSession(w, id, 86400)
		return 204
	})
	handle("POST /messages", func(_ http.ResponseWriter, r *http.Request, _, user string) int {
		switch to := r.FormValue("to"); {
		case user == "":
			return 401
		case !name.MatchString(to):
			return 400
		default: // the line that it is all about
			return publish(r, "user-"+to+":chat", map[string]string{"from": user, "text": r.FormValue("text")})
		}
	})
	// First the session ends, then the streams: they come back, and are told 401.
	handle("POST /logout", func(w http.ResponseWriter, r *http.Request, session, user string) int {
		sessions.Delete(session)
		setSession(w, "", -1)
		if user == "" {
			return 204
		}
		return publish(r, "usercast:user-control", map[string]string{"op": "disconnect", "user": user})
	})

	address := "127.0.0.1:" + cmp.Or(os.Getenv("PORT"), "3000")
	log.Printf("http://%s/", address)
	log.Fatal(http.ListenAndServe(address, nil))
}
