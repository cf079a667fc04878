package cmd_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// handshake is more than what a connection costs besides the layer, in bytes.
const handshake = 12 << 10

// Over each bad line the agent gets what is wanted onto the host, once: it goes
// on where it was cut, and the hook does not hear of it.
func TestAgentOverBadLines(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	for _, test := range []struct {
		name string
		line *line
		size int // of the layer
		hole bool
	}{
		{"cut after every 64 KiB", &line{each: 64 << 10}, 1 << 20, false},
		{"cut after every MiB", &line{each: 1 << 20}, 8 << 20, false},
		{"reset after every MiB", &line{each: 1 << 20, reset: true}, 8 << 20, false},
		{"2 s of latency", &line{oneWay: time.Second}, 1 << 20, false},
		{"1 KiB a second", &line{rate: 1 << 10}, 20 << 10, false},
		{"black hole", &line{rate: 100 << 10}, 1 << 20, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			name := strings.ReplaceAll(test.name, " ", "-")
			noise := make([]byte, test.size)
			rand.NewChaCha8([32]byte{byte(test.size)}).Read(noise)
			s.publish(t, name, "v1", map[string]string{"noise": string(noise), "version": "v1"})
			s.deployctl(t, "addconf", "-name", name, "-layer", name+":v1")

			l := test.line
			h := &host{s: s, dir: t.TempDir(), name: name}
			h.write(t)
			cmd := h.agent("")
			// The registry's key is good for the address of the line, too.
			known := h.dir + "/known_hosts"
			_, key, _ := strings.Cut(s.text("home/.ssh/known_hosts"), " ")
			if err := os.WriteFile(known, []byte("* "+key), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd.Args = append(cmd.Args, "-once=false", "-poll", "1s", "-known-hosts", known, "-addr", l.to(t, s.addr))
			d, err := startDaemon(h.dir, cmd.Env, filepath.Join(h.dir, "log"), cmd.Args[0], cmd.Args[1:]...)
			if err != nil {
				t.Fatal(err)
			}
			defer d.kill()
			log := func() string { return h.text("log") }
			if test.hole {
				h.throughHole(t, l, log)
			}
			wait := time.Now()
			for !strings.Contains(log(), "msg=\"configuration deployed\"") {
				if time.Since(wait) > 2*patience || d.ended() {
					t.Fatalf("nothing was deployed\n%s", log())
				}
				time.Sleep(50 * time.Millisecond)
			}
			if got := h.text("calls"); got != "deploy v1\n" {
				t.Errorf("hooks run: %q", got)
			}
			// What came twice, beside what each connection costs by itself. What a
			// reset finds in the buffers of the kernel is lost.
			conns := l.conns.Load()
			if most := int64(test.size) + conns*(64<<10+handshake); l.each > 64<<10 && !l.reset && l.came.Load() > most {
				t.Errorf("%d bytes came over %d connections, want at most %d", l.came.Load(), conns, most)
			}
			if l.each == 0 && !test.hole && conns > 2 {
				t.Errorf("%d connections, want one or two\n%s", conns, log())
			}
		})
	}
}

// throughHole lets the line swallow everything in the middle of the layer. The
// agent notices that nothing comes any more within a minute.
func (h *host) throughHole(t *testing.T, l *line, log func() string) {
	t.Helper()
	if err := poll(func() (bool, error) { return l.came.Load() > 200<<10, nil }); err != nil {
		t.Fatal(err)
	}
	l.hole.Store(true)
	began := time.Now()
	if err := poll(func() (bool, error) { return strings.Contains(log(), "no byte moved for"), nil }); err != nil {
		t.Fatalf("the black hole was not noticed: %v\n%s", err, log())
	}
	t.Logf("noticed after %v", time.Since(began))
	l.hole.Store(false)
}

// text returns what a file of the host holds; nothing where there is none.
func (h *host) text(name string) string {
	b, err := os.ReadFile(filepath.Join(h.dir, name))
	if err != nil && !os.IsNotExist(err) {
		return fmt.Sprint(err)
	}
	return string(b)
}
