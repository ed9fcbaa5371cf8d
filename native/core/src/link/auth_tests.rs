//! The opening of a link, both ends against each other, and against ends that cheat.

use super::*;
use crate::limits::WINDOW;

const SECRET: &[u8] = b"correct horse battery staple";

fn end(role: Role, secret: Option<&[u8]>, nonce: u8) -> Handshake {
    let hello = Hello { role, features: Hello::CREDIT, window: WINDOW + u32::from(nonce), name: "test" };
    Handshake::new(
        hello,
        secret.map(|bytes| Credentials { secret: Secret::new(bytes).unwrap(), nonce: [nonce; NONCE] }),
    )
}

/// What one end does with the other's bytes: the window when the link is open, and what it says to them.
fn hear(end: &mut Handshake, input: &[u8]) -> Result<(Option<u32>, Vec<u8>), AuthError> {
    let mut decoder = end.decoder();
    if let Some(said) = &end.peer_hello {
        let mut hello = Vec::new();
        Frame::Hello(Hello::parse(said).unwrap()).encode(&mut hello);
        decoder.push(&hello);
        decoder.next().unwrap();
    }
    decoder.push(input);
    let (mut open, mut out) = (None, Vec::new());
    while let Some(frame) = decoder.next().unwrap() {
        open = match frame {
            Frame::Hello(hello) => end.hello(&hello)?,
            Frame::Auth(payload) => end.auth(payload, &mut out)?,
            other => panic!("{}", other.name()),
        };
    }
    Ok((open, out))
}

fn greeting(end: &Handshake) -> Vec<u8> {
    let mut out = Vec::new();
    end.greet(&mut out);
    out
}

#[test]
fn ends_with_the_same_secret_open_the_link() {
    let (mut ecm, mut node) = (end(Role::Ecm, Some(SECRET), 1), end(Role::Ejabberd, Some(SECRET), 2));
    let (first, second) = (greeting(&ecm), greeting(&node));
    // The node says nothing to a challenge: a stranger gets no proof to work on.
    assert_eq!(hear(&mut node, &first), Ok((None, Vec::new())));
    let (open, proof) = hear(&mut ecm, &second).unwrap();
    assert_eq!((open, proof.len()), (None, 46));
    let (open, answer) = hear(&mut node, &proof).unwrap();
    assert_eq!((open, answer.len()), (Some(WINDOW + 1), 46));
    assert_ne!(proof, answer);
    assert_eq!(hear(&mut ecm, &answer), Ok((Some(WINDOW + 2), Vec::new())));
}

#[test]
fn ends_without_secret_open_the_link_by_hello() {
    let (mut ecm, mut node) = (end(Role::Ecm, None, 1), end(Role::Ejabberd, None, 2));
    let (first, second) = (greeting(&ecm), greeting(&node));
    assert_eq!(hear(&mut node, &first), Ok((Some(WINDOW + 1), Vec::new())));
    assert_eq!(hear(&mut ecm, &second), Ok((Some(WINDOW + 2), Vec::new())));
}

#[test]
fn an_end_without_secret_and_one_with_it_refuse_each_other() {
    for role in [Role::Ecm, Role::Ejabberd] {
        let other = if role == Role::Ecm { Role::Ejabberd } else { Role::Ecm };
        let (mut with, mut without) = (end(role, Some(SECRET), 1), end(other, None, 2));
        let hello = &greeting(&with)[..13 + 19];
        assert_eq!(hear(&mut without, hello), Err(AuthError::Unknown(other)));
        assert_eq!(hear(&mut with, &greeting(&without)), Err(AuthError::Missing(role)));
    }
}

#[test]
fn two_ends_of_one_role_refuse_each_other() {
    for role in [Role::Ecm, Role::Ejabberd] {
        let (one, mut other) = (end(role, Some(SECRET), 1), end(role, Some(SECRET), 2));
        assert_eq!(hear(&mut other, &greeting(&one)), Err(AuthError::Role(role)));
    }
}

/// The first steps with these secrets, up to the proof of the manager.
fn proven(ecm: &[u8], node: &[u8]) -> (Handshake, Handshake, Vec<u8>) {
    let (mut ecm, mut node) = (end(Role::Ecm, Some(ecm), 1), end(Role::Ejabberd, Some(node), 2));
    let (first, second) = (greeting(&ecm), greeting(&node));
    hear(&mut node, &first).unwrap();
    let (_, proof) = hear(&mut ecm, &second).unwrap();
    (ecm, node, proof)
}

#[test]
fn another_secret_is_refused() {
    let mut longer = SECRET.to_vec();
    longer.push(0);
    for wrong in [&b"correct horse battery stapled"[..], &SECRET[1..], &longer[..]] {
        let (_, mut node, proof) = proven(wrong, SECRET);
        assert_eq!(hear(&mut node, &proof), Err(AuthError::Wrong(Role::Ejabberd)));
    }
}

#[test]
fn a_proof_with_any_bit_changed_is_refused() {
    let (_, _, proof) = proven(SECRET, SECRET);
    for bit in 14 * 8..proof.len() * 8 {
        let (_, mut node, mut changed) = proven(SECRET, SECRET);
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(hear(&mut node, &changed), Err(AuthError::Wrong(Role::Ejabberd)), "bit {bit}");
    }
}

/// Neither the own proof sent back, nor that of another link, nor one made for another hello is taken.
#[test]
fn proofs_fit_one_link_one_direction_and_its_hellos() {
    let (mut ecm, _, proof) = proven(SECRET, SECRET);
    assert_eq!(hear(&mut ecm, &proof), Err(AuthError::Wrong(Role::Ecm)), "sent back");

    let mut node = end(Role::Ejabberd, Some(SECRET), 3);
    hear(&mut node, &greeting(&end(Role::Ecm, Some(SECRET), 1))).unwrap();
    assert_eq!(hear(&mut node, &proof), Err(AuthError::Wrong(Role::Ejabberd)), "of another link");

    // Somebody in the middle changes the window, or a feature, of a hello under way.
    for at in [13 + 6, 13 + 13] {
        let (ecm, mut node) = (end(Role::Ecm, Some(SECRET), 1), end(Role::Ejabberd, Some(SECRET), 2));
        let mut changed = greeting(&ecm);
        changed[at] ^= 1;
        hear(&mut node, &changed).unwrap();
        assert_eq!(hear(&mut node, &proof), Err(AuthError::Wrong(Role::Ejabberd)), "byte {at}");
    }
}

#[test]
fn steps_in_another_order_or_shape_are_refused() {
    let mut out = Vec::new();
    for payload in [&[][..], &[1], &[1; 32], &[1; 34], &[3; 33], &[2; 33]] {
        let mut node = end(Role::Ejabberd, Some(SECRET), 2);
        let ecm = greeting(&end(Role::Ecm, Some(SECRET), 1));
        hear(&mut node, &ecm[..13 + 19]).unwrap();
        assert_eq!(node.auth(payload, &mut out), Err(AuthError::Order), "{payload:?}");
    }
    let (_, mut node, _) = proven(SECRET, SECRET);
    assert_eq!(node.auth(&[1; 33], &mut out), Err(AuthError::Order), "a second challenge");
    assert!(out.is_empty());
}

#[test]
fn secrets_have_a_length_and_do_not_show() {
    assert_eq!(Secret::new(&[1; MIN_SECRET - 1]), Err(SecretLength(MIN_SECRET - 1)));
    assert_eq!(Secret::new(&[1; MAX_SECRET + 1]), Err(SecretLength(MAX_SECRET + 1)));
    assert!(Secret::new(&[1; MAX_SECRET]).is_ok());
    let secret = Secret::new(&[b'x'; MIN_SECRET]).unwrap();
    assert!(!format!("{:?}", end(Role::Ecm, Some(&secret.0), 1)).contains("120"));
    assert_eq!(format!("{secret:?}"), "Secret");
}
