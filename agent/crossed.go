package agent

import (
	"fmt"

	"deploytools/layers/digest"
)

// crossed is what keeps a configuration from the switch again and again: somebody
// writes to its fixed paths while it is deployed. What happens there once is begun
// anew at once. What goes on would be fetched, unpacked and staged for ever, and a
// Run in Mode.Once would never end.
type crossed struct {
	digest digest.Digest // of the configuration
	times  int           // in a row
	err    error         // the last time
}

// crossedTimes is how often a deployment is begun anew without a pause.
const crossedTimes = 3

// met takes that the host's files kept d from the switch.
func (x *crossed) met(d *Deployment, err error) {
	if d.ByHand || d.Repair { // which are not begun anew
		return
	}
	if x.digest != d.New.Configuration.Digest {
		*x = crossed{digest: d.New.Configuration.Digest}
	}
	x.times++
	x.err = err
}

// rests is an error where the deployment should not be begun now; it is not definite,
// as what kept the earlier ones from the switch was. After the pause
// that this makes it is begun once more.
func (x *crossed) rests(d digest.Digest) error {
	if x.digest != d || x.times < crossedTimes {
		return nil
	}
	x.times--
	return fmt.Errorf("%w: %v; %d deployments in a row were taken back before the switch, which has changed nothing", ErrCrossed, x.err, crossedTimes)
}
