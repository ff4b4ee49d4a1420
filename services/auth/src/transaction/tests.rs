use std::{collections::HashSet, sync::Arc};

use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};

use super::*;

/// Some hundred times as fast as in earnest.
const FAST: Rotation = Rotation {
    every: Duration::from_millis(400),
    lead: Duration::from_millis(150),
    retire: Duration::from_millis(100),
};
/// For how long keys are kept here, without a look at those that are unknown.
const KEPT_FOR: Duration = Duration::from_millis(100);

fn item() -> pb::CatalogItem {
    pb::CatalogItem { service: "code".into(), rpc: "a.B/C".into(), ..Default::default() }
}

#[tokio::test]
async fn keys_change_without_a_token_that_is_refused_and_old_ones_are_withdrawn() {
    let minter = Arc::new(Minter::new("auth", Duration::from_secs(30)).unwrap());
    let stopping = CancellationToken::new();
    let (rotating, stop) = (Arc::clone(&minter), stopping.clone());
    let rotating = tokio::spawn(async move { rotating.rotate(FAST, stop).await });

    let mut validation = Validation::new(ALGORITHM);
    validation.set_audience(&["code"]);
    let (mut known, mut fetched) = (minter.jwks(), Instant::now());
    let (mut signed_by, mut minted) = (HashSet::new(), 0);
    while signed_by.len() < 4 {
        if fetched.elapsed() > KEPT_FOR {
            (known, fetched) = (minter.jwks(), Instant::now());
        }
        let token = minter.mint(&pb::Principal::default(), &item(), &RequestId::generate()).unwrap().token;
        let id = decode_header(&token).unwrap().kid.unwrap();
        let key =
            DecodingKey::from_jwk(known.find(&id).expect("a key that is known before it signs")).unwrap();
        decode::<TransactionClaims>(&token, &key, &validation).unwrap();
        signed_by.insert(id);
        minted += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(minted > 100, "{minted}");
    stopping.cancel();
    rotating.await.unwrap();
    let left = minter.jwks().keys.len();
    assert!(left <= 2, "of {} keys {left} are published", signed_by.len());
}
