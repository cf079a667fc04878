package ctlcmd

import (
	"io"
	"sync"
	"time"

	"deploytools/cmd/internal/cli"
)

// slow is how long something takes before its progress is shown.
const slow = time.Second

// progress is a cli.Progress that appears only when what it shows is slow.
type progress struct {
	show func() io.WriteCloser
	due  time.Time

	mu    sync.Mutex // guards what follows: a Close may come during a Write
	early int        // bytes written before w was there
	w     io.WriteCloser
	ended bool
}

func newProgress(o *cli.IO, label string, totalBytes int64) *progress {
	return &progress{show: func() io.WriteCloser { return cli.Progress(o, label, totalBytes) }, due: time.Now().Add(slow)}
}

// Write counts p. It never fails.
func (p *progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.ended:
	case p.w != nil:
		p.w.Write(b)
	case time.Now().Before(p.due):
		p.early += len(b)
	default:
		p.w = p.show()
		var blank [64 << 10]byte // only lengths count
		for p.early > 0 {
			n := min(p.early, len(blank))
			p.w.Write(blank[:n])
			p.early -= n
		}
		p.w.Write(b)
	}
	return len(b), nil
}

// Close ends the line of what was shown. Closing again does nothing.
func (p *progress) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w != nil && !p.ended {
		p.w.Close()
	}
	p.ended = true
	return nil
}

// watch shows how far the reading of r has come, until it is closed.
func watch(o *cli.IO, r io.ReadCloser, label string, totalBytes int64) io.ReadCloser {
	p := newProgress(o, label, totalBytes)
	return &watched{io.TeeReader(r, p), r, p}
}

type watched struct {
	io.Reader
	r io.Closer
	p *progress
}

func (w *watched) Close() error {
	w.p.Close()
	return w.r.Close()
}
