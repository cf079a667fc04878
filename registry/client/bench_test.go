package client_test

import (
	"bytes"
	"io"
	"testing"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// The speeds are those of both ends together: the server of the tests runs in
// the same process.
const benchBytes = 64 << 20

func BenchmarkFetch(b *testing.B) {
	s := newServer(b)
	d := digest.Of(nil)
	s.files.set(wire.FileName(d), make([]byte, benchBytes))
	c := s.client()
	b.SetBytes(benchBytes)
	for b.Loop() {
		if err := c.Fetch(b.Context(), d, 0, io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUpload(b *testing.B) {
	s := newServer(b)
	c := s.client()
	content := make([]byte, benchBytes)
	b.SetBytes(benchBytes)
	for b.Loop() {
		if err := c.Upload(b.Context(), "upload", bytes.NewReader(content), nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPoll(b *testing.B) {
	s := newServer(b)
	s.global = polls(func(wire.PollRequest) wire.PollReply {
		return wire.PollReply{Configurations: []wire.PollState{{Name: "site"}}}
	})
	c := s.client()
	for b.Loop() {
		if _, err := c.Poll(b.Context(), "site"); err != nil {
			b.Fatal(err)
		}
	}
}
