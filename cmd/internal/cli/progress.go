package cli

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progressInterval is how often a stderr that is no terminal gets a line.
const progressInterval = 10 * time.Second

// Progress shows on stderr how many of totalBytes were written to what it
// returns: as a bar on a terminal, else as a line every 10 s while bytes flow,
// so that a log says whether a long transfer moves. A negative total is not
// known. It uses no colour. The caller closes it, before printing anything
// else. Safe for concurrent use; Write does not fail.
func Progress(o *IO, label string, totalBytes int64) io.WriteCloser {
	label = Clean(label)
	if o.IsTerminal(o.Stderr) {
		return newBar(o.Stderr, label, totalBytes)
	}
	return &progressLines{w: o.Stderr, label: label, total: totalBytes, next: time.Now().Add(progressInterval)}
}

// bar is a progress bar. Its errors, of a terminal that went away, are dropped:
// the transfer goes on.
type bar struct {
	w io.Writer
	b *progressbar.ProgressBar
}

func newBar(w io.Writer, label string, totalBytes int64) *bar {
	return &bar{w, progressbar.NewOptions64(totalBytes,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription(label),
		progressbar.OptionShowCount(),
		progressbar.OptionShowBytes(true),
		progressbar.OptionShowTotalBytes(true),
		progressbar.OptionUseIECUnits(true),
		progressbar.OptionFullWidth(),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetRenderBlankState(true),
		progressbar.OptionSetSpinnerChangeInterval(0), // else a goroutine draws on after Close
	)}
}

func (b *bar) Write(p []byte) (int, error) {
	b.b.Add(len(p))
	return len(p), nil
}

// Close leaves the bar as it stands, so that a transfer that was cut shows how
// far it came, and ends its line.
func (b *bar) Close() error {
	b.b.Exit()
	fmt.Fprintln(b.w)
	return nil
}

// progressLines prints lines instead of a bar.
type progressLines struct {
	w     io.Writer
	label string
	total int64 // bytes, negative when not known

	mu   sync.Mutex // guards what follows
	done int64      // bytes
	next time.Time  // of the next line
}

func (l *progressLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done += int64(len(p))
	if now := time.Now(); !now.Before(l.next) {
		l.next = now.Add(progressInterval)
		if l.total > 0 {
			fmt.Fprintf(l.w, "%s: %d of %d bytes, %d %%\n", l.label, l.done, l.total, int64(100*float64(l.done)/float64(l.total)))
		} else {
			fmt.Fprintf(l.w, "%s: %d bytes\n", l.label, l.done)
		}
	}
	return len(p), nil
}

func (l *progressLines) Close() error { return nil }
