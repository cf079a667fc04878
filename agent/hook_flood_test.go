package agent

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A hook printed without end, and the disk and the log were full.
func TestHookThatFloodsIsBounded(t *testing.T) {
	h := newHookTest(t, "echo first; yes 0123456789 | head -c 64000000; echo last")
	if r := h.mustRun(); r.Err() != nil {
		t.Fatal(r.Err())
	}
	logged := 0
	for _, line := range h.lines {
		logged += len(line) + 1
	}
	if end := fmt.Sprintf("[more of it in %s]", h.c.file("output")); logged > hookLogged+(64<<10)+200 || h.lines[0] != "first" || h.lines[len(h.lines)-1] != end {
		t.Errorf("%d bytes in the log, from %q to %q", logged, h.lines[0], h.lines[len(h.lines)-1])
	}
	var s unix.Stat_t
	must(unix.Stat(h.c.file("output"), &s))
	if onDisk := s.Blocks * 512; onDisk > hookEnd+hookEvidence+(1<<20) {
		t.Errorf("%d of %d bytes are on the disk", onDisk, s.Size)
	}
	b, err := readOutput(h.c.file("output"))
	must(err)
	if out := string(b); !strings.HasPrefix(out, "first\n012345") || !strings.HasSuffix(out, "last\n") || len(out) > hookEvidence+100 || strings.Contains(out, "\x00") {
		t.Errorf("evidence of %d bytes, from %q to %q", len(out), out[:20], out[len(out)-20:])
	}
}
