package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// tokensOf returns the delegation tokens of a principal that whoever asks may see. They outlive
// its credential.
func tokensOf(principal string) func(context.Context, broker) ([]kmsg.DescribeDelegationTokenResponseTokenDetail, error) {
	return func(ctx context.Context, b broker) ([]kmsg.DescribeDelegationTokenResponseTokenDetail, error) {
		request := kmsg.NewPtrDescribeDelegationTokenRequest()
		request.Owners = []kmsg.DescribeDelegationTokenRequestOwner{{PrincipalType: "User", PrincipalName: principal}}
		resp, err := ask[*kmsg.DescribeDelegationTokenResponse](ctx, b, request)
		if err != nil {
			return nil, err
		}
		err = refusalOf(resp.ErrorCode, nil)
		if errors.Is(err, kerr.DelegationTokenAuthDisabled) || errors.Is(err, kerr.DelegationTokenRequestNotAllowed) {
			return nil, nil // there are none
		}
		return resp.TokenDetails, err
	}
}

// tokens returns the delegation tokens of a principal that the administrator may see.
func (c *cluster) tokens(ctx context.Context, principal string) (out []kmsg.DescribeDelegationTokenResponseTokenDetail, err error) {
	err = c.any(ctx, fmt.Sprintf("looking at the delegation tokens of %q", principal), func(ctx context.Context, b broker) (err error) {
		out, err = tokensOf(principal)(ctx, b)
		return err
	})
	return out, err
}

// endTokens ends the tokens of a principal. Nobody but their owner may, so c is the brokers, asked
// as the principal itself.
func (c *cluster) endTokens(ctx context.Context, principal string) error {
	return c.any(ctx, fmt.Sprintf("ending the delegation tokens of %q", principal), func(ctx context.Context, b broker) error {
		tokens, err := tokensOf(principal)(ctx, b)
		if err != nil {
			return err
		}
		var errs []error
		for _, token := range tokens {
			request := kmsg.NewPtrExpireDelegationTokenRequest()
			request.HMAC, request.ExpiryPeriodMillis = token.HMAC, -1
			resp, err := ask[*kmsg.ExpireDelegationTokenResponse](ctx, b, request)
			if err == nil {
				err = refusalOf(resp.ErrorCode, nil)
			}
			if !errors.Is(err, kerr.DelegationTokenNotFound) {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	})
}
