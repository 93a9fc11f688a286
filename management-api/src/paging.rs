//! Pages, orders and filters in queries.

use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;

/// The last page that can be asked for, as documented.
pub(crate) const PAGE_MAX: u32 = 50;
/// Items on a page where the client names no number, as documented.
const PAGE_SIZE_DEFAULT: u32 = 10;

/// Which page a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageRequest {
    /// From 1.
    pub(crate) page: u32,
    pub(crate) size: u32,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Page<T> {
    /// The items of this page.
    pub(crate) items: Vec<T>,
    /// The number of this page, from 1.
    #[schema(minimum = 1, maximum = 50)]
    pub(crate) page: u32,
    /// How many pages there are; at least 1, also for an empty list.
    #[schema(minimum = 1)]
    pub(crate) page_amount: u64,
}

/// One field of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SortKey<F> {
    pub(crate) field: F,
    pub(crate) descending: bool,
}

impl PageRequest {
    /// Reads `page` and `pageSize`; a page holds at most `size_max` items.
    pub(crate) fn parse(
        page: Option<&str>,
        size: Option<&str>,
        size_max: u32,
    ) -> Result<Self, ApiError> {
        Ok(Self {
            page: number("page", page, 1, PAGE_MAX)?,
            size: number("pageSize", size, PAGE_SIZE_DEFAULT, size_max)?,
        })
    }

    /// Items before this page.
    pub(crate) fn skip(self) -> usize {
        (self.page as usize - 1) * self.size as usize
    }

    /// Items on this page.
    pub(crate) fn take(self) -> usize {
        self.size as usize
    }

    /// The page of a list of `total` items, of which `items` are this page's.
    pub(crate) fn page_of<T>(self, items: Vec<T>, total: u64) -> Page<T> {
        let page_amount = total.div_ceil(u64::from(self.size)).max(1);
        Page { items, page: self.page, page_amount }
    }

    /// This page of a whole list that is at hand.
    pub(crate) fn slice<T>(self, all: Vec<T>) -> Page<T> {
        let total = all.len() as u64;
        let items = all.into_iter().skip(self.skip()).take(self.take()).collect();
        self.page_of(items, total)
    }
}

impl<T> Page<T> {
    /// The same page with other items.
    pub(crate) fn map<U>(self, convert: impl FnMut(T) -> U) -> Page<U> {
        let Self { items, page, page_amount } = self;
        Page { items: items.into_iter().map(convert).collect(), page, page_amount }
    }
}

/// A whole number from 1 to `max`.
pub(crate) fn number(
    field: &str,
    text: Option<&str>,
    default: u32,
    max: u32,
) -> Result<u32, ApiError> {
    let Some(text) = text else { return Ok(default.min(max)) };
    match text.parse() {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        _ => Err(ApiError::field(
            field,
            format!("{field} {text:?} is not allowed"),
            format!("1 to {max}"),
        )),
    }
}

/// Reads `sort`: fields with commas between, `-` before one for descending order.
pub(crate) fn sort<F: Copy>(
    text: Option<&str>,
    allowed: &[(&str, F)],
) -> Result<Vec<SortKey<F>>, ApiError> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let keys = text.split(',').map(|part| {
        let part = part.trim();
        let (name, descending) = match part.strip_prefix('-') {
            Some(name) => (name, true),
            None => (part, false),
        };
        let field = field_of("sort", name, allowed)?;
        Ok(SortKey { field, descending })
    });
    keys.collect()
}

/// Reads `q`: `field:value` with commas, or as one documented sample has it semicolons, between.
/// A value may hold colons, as times do.
pub(crate) fn filters<'a, F: Copy>(
    text: Option<&'a str>,
    allowed: &[(&str, F)],
) -> Result<Vec<(F, &'a str)>, ApiError> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let filters = text.split([',', ';']).filter(|part| !part.trim().is_empty()).map(|part| {
        let (name, value) = part.split_once(':').ok_or_else(|| {
            let message = format!("{part:?} has no colon");
            ApiError::field("q", message, "field:value, several with commas between")
        })?;
        Ok((field_of("q", name.trim(), allowed)?, value.trim()))
    });
    filters.collect()
}

fn field_of<F: Copy>(parameter: &str, name: &str, allowed: &[(&str, F)]) -> Result<F, ApiError> {
    let known = allowed.iter().find(|(known, _)| *known == name);
    known.map(|(_, field)| *field).ok_or_else(|| {
        let names: Vec<&str> = allowed.iter().map(|(name, _)| *name).collect();
        ApiError::field(parameter, format!("field {name:?} is not known"), names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [(&str, char); 2] = [("iccid", 'i'), ("startDateTime", 's')];

    #[test]
    fn pages_start_at_one_and_an_empty_list_has_one() {
        let request = PageRequest::parse(Some("2"), Some("3"), 50).unwrap();
        let page = request.slice(vec![1, 2, 3, 4]);
        assert_eq!(page, Page { items: vec![4], page: 2, page_amount: 2 });
        let empty = PageRequest::parse(None, None, 50).unwrap().slice(Vec::<u8>::new());
        assert_eq!(empty, Page { items: vec![], page: 1, page_amount: 1 });
    }

    #[test]
    fn numbers_outside_of_the_limits_are_refused() {
        for page in ["0", "51", "-1", "one", ""] {
            assert!(PageRequest::parse(Some(page), None, 50).is_err(), "{page}");
        }
        assert!(PageRequest::parse(None, Some("26"), 25).is_err());
    }

    #[test]
    fn an_order_is_a_list_of_fields() {
        let keys = sort(Some("iccid,-startDateTime"), &FIELDS).unwrap();
        let found: Vec<_> = keys.iter().map(|key| (key.field, key.descending)).collect();
        assert_eq!(found, [('i', false), ('s', true)]);
        assert!(sort(Some("imei"), &FIELDS).is_err());
        assert!(sort(Some(""), &FIELDS).is_err());
    }

    #[test]
    fn a_filter_may_hold_colons() {
        let found = filters(Some("iccid:1;startDateTime:2022-02-21T12:47:30Z"), &FIELDS).unwrap();
        assert_eq!(found, [('i', "1"), ('s', "2022-02-21T12:47:30Z")]);
        assert!(filters(Some("imei:1"), &FIELDS).is_err());
        assert!(filters(Some("iccid"), &FIELDS).is_err());
        assert_eq!(filters(Some(""), &FIELDS).unwrap(), []);
    }
}
