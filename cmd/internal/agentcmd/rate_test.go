package agentcmd

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
)

func TestRateOfBytes(t *testing.T) {
	for text, want := range map[string]bytesRate{"0": 0, "1024": 1024, "500K": 500 << 10, "10M": 10 << 20, "1GiB": 1 << 30} {
		var r bytesRate
		if err := r.Set(text); err != nil || r != want {
			t.Errorf("Set(%q) = %v, %v, want %v", text, int64(r), err, int64(want))
		}
	}
	for _, text := range []string{"", "K", "-1", "1023", "1.5M", "10%", "10 M", "KM", "9999999999T"} {
		var r bytesRate
		if err := r.Set(text); err == nil {
			t.Errorf("Set(%q) = %d", text, r)
		}
	}
}

func TestConnectionIsReadNoFasterThanTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := newSlowed(near, rate.NewLimiter(100<<10, 10<<10))
		go func() {
			for b := make([]byte, 64<<10); ; {
				if _, err := far.Write(b); err != nil {
					return
				}
			}
		}()
		start := time.Now()
		if _, err := io.CopyN(io.Discard, c, 1<<20); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("1 MiB took %v at 100 KiB/s", took)
		}
		go func() {
			time.Sleep(10 * time.Millisecond)
			c.Close()
		}()
		start = time.Now()
		if _, err := io.Copy(io.Discard, c); err == nil || time.Since(start) > time.Second {
			t.Errorf("Read after Close = %v, %v later", err, time.Since(start))
		}
		far.Close()
	})
}
