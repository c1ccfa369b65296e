package auth

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func keyFor(i int) answerKey { return keyOf(http.Header{"Cookie": {fmt.Sprint(i)}}) }

func TestAnswersEnd(t *testing.T) {
	a, now := newAnswers(), time.Now()
	a.keep(keyFor(1), Identity{User: "42"}, now, now.Add(time.Hour))
	if id, known := a.find(keyFor(1), now); !known || id.User != "42" {
		t.Errorf("%+v, %v", id, known)
	}
	if _, known := a.find(keyFor(1), now.Add(time.Hour)); known {
		t.Error("an answer is believed for longer than its time")
	}
	a.keep(keyFor(1), Identity{User: "43"}, now, now.Add(time.Hour)) // somebody else logged in
	a.forget("42")
	if id, known := a.find(keyFor(1), now); !known || id.User != "43" {
		t.Errorf("%+v, %v", id, known)
	}
	a.forget("43")
	if _, known := a.find(keyFor(1), now); known || a.bytes != 0 || len(a.byUser) != 0 {
		t.Errorf("known %v, %d bytes, %d users", known, a.bytes, len(a.byUser))
	}
}

// What is kept is bounded, whoever asks how, and what nobody can use any more is let go of.
func TestAnswersAreBounded(t *testing.T) {
	now := time.Now()
	later := now.Add(time.Hour)
	a := newAnswers()
	for i := range 50_000 {
		a.keep(keyFor(i), Identity{User: fmt.Sprint(i)}, now, later)
	}
	if _, oldest := a.find(keyFor(0), now); oldest || a.bytes > maxAnswerBytes || a.bytes < maxAnswerBytes*9/10 {
		t.Errorf("%d bytes are kept, the oldest: %v", a.bytes, oldest)
	}
	if _, newest := a.find(keyFor(49_999), now); !newest {
		t.Error("the newest is not kept")
	}
	a.keep(keyFor(-1), Identity{User: "42", Topics: []string{strings.Repeat("x", 1<<20)}}, now, later)
	if a.bytes > maxAnswerBytes {
		t.Errorf("%d bytes with a large one", a.bytes)
	}

	// One user with many cookies does not take the place of others, and none of their time.
	a = newAnswers()
	a.keep(keyFor(-1), Identity{User: "other"}, now, later)
	for i := range 50_000 {
		a.keep(keyFor(i), Identity{User: "42"}, now, later)
	}
	if _, known := a.find(keyFor(-1), now); !known || len(a.byKey) != maxAnswersPerUser+1 {
		t.Errorf("%d answers, the other's: %v", len(a.byKey), known)
	}
	a.keep(keyFor(-2), Identity{User: "other"}, later, later.Add(time.Hour))
	if len(a.byKey) != 1 || a.inOrder.Len() != 1 || len(a.byUser) != 1 {
		t.Errorf("%d answers are kept though their time is over", len(a.byKey)-1)
	}
}

// One line when it begins, one when it is over, however often it comes and goes.
func TestOutageIsToldOnce(t *testing.T) {
	var o outage
	now := time.Now()
	at := func(after time.Duration) time.Time { return now.Add(after) }
	if o.works(at(0)) {
		t.Error("what never failed works again")
	}
	if !o.fails(at(0)) || o.fails(at(time.Second)) {
		t.Error("a failure is told once")
	}
	told := 0
	for ms := range 9000 { // a stranger's odd requests between those of others
		if ms%2 == 0 && o.fails(at(time.Second+time.Duration(ms)*time.Millisecond)) || o.works(at(time.Second+time.Duration(ms)*time.Millisecond)) {
			told++
		}
	}
	if told != 0 {
		t.Errorf("%d lines more", told)
	}
	if o.works(at(19*time.Second)) || !o.works(at(20*time.Second)) || o.works(at(21*time.Second)) {
		t.Error("that it works again is told once, after ten seconds without a failure")
	}
	if !o.fails(at(22 * time.Second)) {
		t.Error("the next failure is not told")
	}
}
