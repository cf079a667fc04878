package client

import (
	"io"
	"testing"
	"testing/synctest"

	"golang.org/x/crypto/ssh"
)

// An opening of a channel that the library does not wake at the end of the
// connection ends all the same, whichever came first.
func TestOpeningEndsWithTheConnection(t *testing.T) {
	for name, endsFirst := range map[string]bool{"crosses the end": true, "waits for the answer": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cn := &conn{done: make(chan struct{})}
				if endsFirst {
					close(cn.done)
				}
				asleep := make(chan struct{})
				got := make(chan error)
				go func() {
					_, err := opened(cn, func() (*ssh.Session, error) {
						<-asleep
						return nil, nil
					})
					got <- err
				}()
				synctest.Wait()
				if !endsFirst {
					close(cn.done)
				}
				if err := <-got; err != io.EOF {
					t.Errorf("opened() = %v, want %v", err, io.EOF)
				}
				close(asleep)
			})
		})
	}
}
