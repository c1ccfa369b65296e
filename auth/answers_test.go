package auth

import (
	"net/http"
	"net/url"
	"testing"
	"time"
)

// What was asked before somebody was forgotten is not kept: it may be about them.
func TestAnswersOfAnEarlierEraAreNotKept(t *testing.T) {
	a := newAnswers()
	key, now := keyOf(http.Header{"Cookie": {"a"}}), time.Now()
	_, _, era := a.find(key, now)
	a.forget("42")
	a.keep(key, Identity{User: "42"}, now.Add(time.Hour), era)
	_, known, era := a.find(key, now)
	if known {
		t.Error("an answer from before is believed")
	}
	a.keep(key, Identity{User: "42"}, now.Add(time.Hour), era)
	if id, known, _ := a.find(key, now); !known || id.User != "42" {
		t.Errorf("%+v, %v", id, known)
	}
	if _, known, _ := a.find(key, now.Add(time.Hour)); known {
		t.Error("an answer is believed for longer than its time")
	}
}

// Between the look at what is known and the question somebody else may have had the answer.
func TestForwardLooksAgainBeforeItAsks(t *testing.T) {
	nobody, err := url.Parse("http://127.0.0.1:1/")
	if err != nil {
		t.Fatal(err)
	}
	f := NewForward(ForwardConfig{URL: nobody, Cache: time.Hour})
	defer f.Close()
	header := http.Header{"Cookie": {"a"}}
	key := keyOf(header)
	_, _, era := f.answers.find(key, time.Now())
	f.answers.keep(key, Identity{User: "42"}, time.Now().Add(time.Hour), era)
	if id, err := f.answer(header, key, era); err != nil || id.User != "42" {
		t.Errorf("%+v, %v", id, err)
	}
}

// What is kept is bounded, and what nobody can use any more is let go of.
func TestAnswersAreBounded(t *testing.T) {
	a := newAnswers()
	add := func(i int, until time.Time) {
		var key answerKey
		key[0], key[1], key[2] = byte(i), byte(i>>8), byte(i>>16)
		a.keep(key, Identity{User: string(key[:3])}, until, 0)
	}
	for i := range maxAnswers + 100 {
		add(i, time.Now().Add(time.Hour))
	}
	if a.list.Len() != maxAnswers || len(a.byUser) != maxAnswers {
		t.Errorf("%d answers of %d users are kept", a.list.Len(), len(a.byUser))
	}
	a = newAnswers()
	for i := range 100 {
		add(i, time.Now())
	}
	add(100, time.Now().Add(time.Hour))
	if a.list.Len() != 1 || len(a.byUser) != 1 {
		t.Errorf("%d answers of %d users are kept though their time is over", a.list.Len(), len(a.byUser))
	}
}
