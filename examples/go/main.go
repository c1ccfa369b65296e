// A small app whose users log in and send each other messages: net/http and go-redis.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"regexp"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed page.html
var page []byte

var sessions sync.Map // session id -> user; in your app, a database

var name = regexp.MustCompile(`^[a-z0-9]{1,32}$`)

var rdb *redis.Client

// publish reports whether Redis has received the message. It takes at most a second and never fails the request.
func publish(channel string, message any) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	payload, err := json.Marshal(message)
	if err == nil {
		err = rdb.Publish(ctx, channel, payload).Err()
	}
	if err != nil {
		log.Printf("usercast: %v", err)
	}
	return err == nil
}

func main() {
	options, err := redis.ParseURL(cmp.Or(os.Getenv("REDIS_URL"), "redis://127.0.0.1:6379"))
	if err != nil {
		log.Fatal(err)
	}
	options.ContextTimeoutEnabled = true // otherwise the context does not limit reads and writes
	rdb = redis.NewClient(options)

	// A handler returns the status. user is empty without a login.
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
	setSession := func(w http.ResponseWriter, id string, maxAge int) { // with HTTPS, also set Secure
		http.SetCookie(w, &http.Cookie{Name: "session", Value: id, Path: "/", MaxAge: maxAge, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	}

	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { w.Write(page) })

	// The session check: the hub sends it with the browser's cookies.
	handle("GET /usercast/session", func(w http.ResponseWriter, _ *http.Request, _, user string) int {
		if user == "" {
			return 401
		}
		w.Header().Set("X-User-ID", user)
		return 200
	})
	handle("POST /login", func(w http.ResponseWriter, r *http.Request, _, _ string) int {
		if !name.MatchString(r.FormValue("name")) { // a real app checks a password here
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
		case !publish("user-"+to+":chat", map[string]string{"from": user, "text": r.FormValue("text")}):
			return 503 // a real app has stored the message and answers 204
		default:
			return 204
		}
	})
	// Delete the session first: the browser reconnects after the command, and then gets 401.
	handle("POST /logout", func(w http.ResponseWriter, r *http.Request, session, user string) int {
		sessions.Delete(session)
		setSession(w, "", -1)
		if user != "" {
			publish("usercast:user-control", map[string]string{"op": "disconnect", "user": user})
		}
		return 204
	})

	address := "127.0.0.1:" + cmp.Or(os.Getenv("PORT"), "3000")
	log.Printf("http://%s/", address)
	log.Fatal(http.ListenAndServe(address, nil))
}
