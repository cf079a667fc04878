package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"

	"deploytools/layers/digest"
)

// asFormat rewrites a document as an agent of another format would have it.
func asFormat(file string, number int) {
	b, err := os.ReadFile(file)
	must(err)
	var d document
	must(json.Unmarshal(b, &d))
	d.Format = number
	b, err = json.Marshal(d)
	must(err)
	must(os.WriteFile(file, b, 0o600))
}

// A host comes from an agent of the first format, and goes back to it.
func TestFormatOfRecords(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.versions(1)
		root := h.dir + "/" + h.agent.Record().Live.Dir + ".json"
		for _, file := range []string{h.dir + "/journal.json", root} {
			asFormat(file, 1)
		}
		h.src.put("v2", one("2"))
		h.want("v2", nil)
		b, err := os.ReadFile(h.dir + "/journal.json")
		must(err)
		if !bytes.HasPrefix(b, fmt.Appendf(nil, `{"Format":%d,`, format)) || format != 2 {
			t.Errorf("after a deployment the record begins with %.20s", b)
		}
		for _, known := range []int{1, format - 1} { // what an older agent knows
			if err := decodeUpTo(known, b, new(Record)); !errors.Is(err, errNewer) {
				t.Errorf("an agent that knows format %d: %v, want errNewer", known, err)
			}
		}
		h.invariants()
	})
}

func TestDocumentWithoutAFormat(t *testing.T) {
	for _, number := range []int{0, -1} {
		body := []byte("{}")
		b, err := json.Marshal(document{number, digest.Of(body), body})
		must(err)
		if err := decode(b, new(Record)); !errors.Is(err, errDamaged) {
			t.Errorf("format %d: %v, want errDamaged", number, err)
		}
	}
}
