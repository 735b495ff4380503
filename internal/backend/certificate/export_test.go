package certificate

import (
	"encoding/json"
	"time"
)

// SetIssuing sets the condition that has cert-manager issue, on a Certificate in JSON.
func SetIssuing(raw []byte, now time.Time) ([]byte, error) {
	r, err := parseResource(raw)
	if err != nil {
		return nil, err
	}
	r.setIssuing(now)
	return json.Marshal(r.whole)
}
