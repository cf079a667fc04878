package sftpfs

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry"
)

func TestPutOfARefusedArchiveIsTold(t *testing.T) {
	o := options()
	o.Check = func(ctx context.Context, r io.Reader, _ func(int64) error) (registry.Archive, error) {
		a, _ := check(ctx, r, nil)
		return a, &registry.Error{Kind: registry.ErrRefused, Text: "entry \"\x1b[2J\": a device"}
	}
	c, n, _ := session(t, open(t, o), ann)
	put(t, c, "web.tar.gz", "content")
	want := fmt.Sprintf("stored %s 7 bytes web.tar.gz\nrefused web.tar.gz: entry \"?[2J\": a device\n", digest.Of([]byte("content")))
	if n.String() != want {
		t.Errorf("the user sees %q, want %q", n, want)
	}
}

// A client that waits for the end of an upload may wait a second for the
// verdict, not longer.
func TestPutDoesNotWaitForALateVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := options()
		o.Check = func(ctx context.Context, r io.Reader, _ func(int64) error) (registry.Archive, error) {
			<-ctx.Done() // the registry closes
			return registry.Archive{}, ctx.Err()
		}
		c, n, cut := session(t, open(t, o), ann)
		begun := time.Now()
		put(t, c, "web.tar.gz", "content")
		if took := time.Since(begun); took > time.Second {
			t.Errorf("the upload ended after %v", took)
		}
		if got := n.String(); !strings.HasPrefix(got, "stored ") || strings.Contains(got, "refused") {
			t.Errorf("the user sees %q", got)
		}
		cut()
	})
}
