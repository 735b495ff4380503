// Command certmanager holds what Keyturn writes to a Certificate of cert-manager against
// cert-manager's own code, and the manifests of a page against the types of both: an
// unknown member or a value of another type is an error.
//
//	certmanager FILE.json… FILE.md…
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"time"

	apiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	clock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/yaml"
)

func main() {
	for _, file := range os.Args[1:] {
		check := written
		if strings.HasSuffix(file, ".md") {
			check = shown
		}
		text, err := os.ReadFile(file)
		if err == nil {
			err = check(text)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", file, err)
			os.Exit(1)
		}
	}
}

// at is when the condition of the files is set.
var at = time.Date(2026, 11, 29, 3, 0, 0, 0, time.UTC)

// written does to a Certificate what cmctl renew does, and compares.
func written(text []byte) error {
	var file struct{ Before, After json.RawMessage }
	if err := json.Unmarshal(text, &file); err != nil {
		return err
	}
	var before, after cmapi.Certificate
	for raw, into := range map[*json.RawMessage]*cmapi.Certificate{&file.Before: &before, &file.After: &after} {
		if err := strict(*raw, into); err != nil {
			return err
		}
	}
	apiutil.Clock = clock.NewFakeClock(at)
	apiutil.SetCertificateCondition(&before, before.Generation, cmapi.CertificateConditionIssuing, cmmeta.ConditionTrue, "ManuallyTriggered", "Certificate re-issuance manually triggered")
	got, err := plain(after)
	if err != nil {
		return err
	}
	want, err := plain(before)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("cert-manager's own code makes another one of it: %v", want)
	}
	return nil
}

func strict(raw []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

// plain returns what a Certificate is in JSON.
func plain(c cmapi.Certificate) (out any, err error) {
	b, err := json.Marshal(c)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	return out, err
}

var blocks = regexp.MustCompile("(?s)```yaml\n(apiVersion:.*?)```")

// shown decodes the manifests of a page.
func shown(text []byte) error {
	found := blocks.FindAllSubmatch(text, -1)
	if len(found) == 0 {
		return errors.New("it shows no manifest")
	}
	for _, block := range found {
		var kind struct{ APIVersion, Kind string }
		if err := yaml.Unmarshal(block[1], &kind); err != nil {
			return err
		}
		var into any
		switch kind.APIVersion + " " + kind.Kind {
		case "cert-manager.io/v1 Certificate":
			into = &cmapi.Certificate{}
		case "rbac.authorization.k8s.io/v1 Role":
			into = &rbacv1.Role{}
		default:
			return fmt.Errorf("it shows a %s %s, which is not known here", kind.APIVersion, kind.Kind)
		}
		if err := yaml.UnmarshalStrict(block[1], into); err != nil {
			return err
		}
	}
	return nil
}
