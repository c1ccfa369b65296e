package main

import (
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// asProgram in the environment makes the test binary be usercast itself: tests
// that need a process of its own start it so.
const asProgram = "TEST_BINARY_IS_USERCAST"

// asReader makes it a page in a process of its own, of the stream at that address.
const asReader = "TEST_BINARY_READS_FROM"

// patience bounds waiting for something that will come. It is long because it
// only matters to a test that fails.
const patience = 30 * time.Second

// soon is what "at once" means on a loaded machine.
const soon = 5 * time.Second

// asIdler makes it hold connections to that address that ask for nothing.
const asIdler = "TEST_BINARY_CONNECTS_TO"

// asWitness makes it a well-behaved stream of the hub at that URL, and that Redis.
const asWitness = "TEST_BINARY_TESTIFIES_OF"

func TestMain(m *testing.M) {
	if where := os.Getenv(asWitness); where != "" {
		fmt.Fprintln(os.Stderr, testify(where))
		os.Exit(1)
	}
	if addr := os.Getenv(asIdler); addr != "" {
		os.Exit(connectAndWait(addr))
	}
	if os.Getenv(asProgram) != "" {
		main()
	}
	if addr := os.Getenv(asReader); addr != "" {
		os.Exit(readAndTell(addr))
	}
	code := m.Run()
	http.DefaultClient.CloseIdleConnections() // what the command health has asked over
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// eventually waits until done.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	within(t, patience, what, done)
}

// within is eventually for a promise that names a time.
func within(t *testing.T, d time.Duration, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(d); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain until %s", d, what)
		}
	}
}
